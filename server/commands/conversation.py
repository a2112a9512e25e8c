"""A conversation with a language model of a server: what was said, and how it is asked."""

import base64
import mimetypes
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from trivet.server.commands.client import Client

PREFIX_HEADER = "x-trivet-prefix"
SETTINGS: dict[str, Callable[[str], object]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "max_tokens": int,
    "seed": int,
    "frequency_penalty": float,
    "presence_penalty": float,
    "repetition_penalty": float,
}
"""What `/set` knows, as fields of a chat request."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer took."""

    num_tokens: int
    first_token_s: float
    total_s: float

    def __str__(self) -> str:
        after_first_s = self.total_s - self.first_token_s
        rate = (
            f", {(self.num_tokens - 1) / after_first_s:.1f} a second" if after_first_s > 0 else ""
        )
        return f"{self.num_tokens} tokens{rate}, the first after {self.first_token_s:.2f} s"


@dataclass(slots=True)
class Conversation:
    """With one model, until it is cleared."""

    client: Client
    model: str
    system: str = ""
    settings: dict[str, object] = field(default_factory=lambda: {"temperature": 0.7})
    messages: list[dict[str, Any]] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    """Those that go with the next message."""
    last: Answered | None = None
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What proxies know the conversation by, so that one server gets all of it."""

    def say(self, text: str) -> Iterator[str]:
        """The answer's text piece by piece. One that is broken off is kept as far as it came, one
        that failed is not, nor is what it was to answer."""
        self.messages.append({"role": "user", "content": self._content(text)})
        pieces: list[str] = []
        try:
            yield from self._pieces(pieces)
        finally:
            if pieces:
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
                self.images.clear()
            else:
                self.messages.pop()

    def clear(self) -> None:
        """Forgets what was said."""
        self.messages.clear()
        self.images.clear()

    def set(self, name: str, value: str) -> None:
        """Raises ClickException for what there is not."""
        if name not in SETTINGS:
            raise click.ClickException(f"'{name}' is no setting; there are {', '.join(SETTINGS)}")
        try:
            self.settings[name] = SETTINGS[name](value)
        except ValueError:
            raise click.ClickException(f"{name} is a number, not '{value}'") from None

    def _pieces(self, kept: list[str]) -> Iterator[str]:
        begun_s = time.perf_counter()
        first_s = num_tokens = 0.0
        headers = {PREFIX_HEADER: self.prefix}
        for event in self.client.events("/v1/chat/completions", self._request(), headers):
            usage = event.get("usage")
            num_tokens = usage["completion_tokens"] if usage else num_tokens
            for choice in event.get("choices", ()):
                delta = choice["delta"]
                text = delta.get("content") or delta.get("reasoning_content") or ""
                if text:
                    first_s = first_s or time.perf_counter() - begun_s
                    kept.append(text)
                    yield text
        self.last = Answered(int(num_tokens), first_s, time.perf_counter() - begun_s)

    def _request(self) -> dict[str, Any]:
        before = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*before, *self.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.settings,
        }

    def _content(self, text: str) -> str | list[dict[str, Any]]:
        if not self.images:
            return text
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(path)}} for path in self.images
        ]
        return [*parts, {"type": "text", "text": text}]


def _data_url(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"image {path} cannot be read: {error.strerror}") from None
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

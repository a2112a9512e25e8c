"""Chunks to the pieces of OpenAI's answers that chat and completions share."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trivet import __version__
from trivet.backends.api import Chunk, Finish, TokenLogprob
from trivet.server.http.openai.messages import Message, plain_message
from trivet.server.models.routing import COST_HEADER, VERSION_HEADER

FINGERPRINT = f"trivet-{__version__}"


def fingerprint_of(told: Mapping[str, str]) -> str:
    """What changes with what computes: with the model's version, too, where answers tell of it."""
    version = told.get(VERSION_HEADER)
    return f"{FINGERPRINT}-v{version}" if version else FINGERPRINT


def cost_in(told: Mapping[str, str]) -> dict[str, float]:
    """What a whole answer cost, beside its token counts, where it has a price: of streams, whose
    heads are sent before that is known."""
    cost = told.get(COST_HEADER)
    return {"cost": float(cost)} if cost else {}


@dataclass(frozen=True, slots=True)
class Head:
    """What all documents of an answer begin with."""

    id: str
    created_s: int
    model: str
    told: Mapping[str, str] = field(default_factory=dict)
    """Of the version that computes it; see Admitted."""

    def fields(self, kind: str) -> dict[str, Any]:
        """As a document has them; `kind` is its `object`."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            # TGI's client takes no null for it.
            "system_fingerprint": fingerprint_of(self.told),
        }


@dataclass(slots=True)
class Output:
    """One choice, put together."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: Sequence[TokenLogprob] | None = None
    finish: Finish | None = None
    num_cached: int = 0

    def add(self, chunk: Chunk) -> None:
        """The next piece."""
        self.texts.append(chunk.text)
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        self.num_cached += chunk.num_cached
        if chunk.prompt_logprobs is not None:
            self.prompt_logprobs = chunk.prompt_logprobs
        self.finish = chunk.finish

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


def collect(chunks: Sequence[tuple[int, Chunk]], count: int) -> list[Output]:
    """Chunks of `count` choices, by choice."""
    outputs = [Output() for _ in range(count)]
    for index, chunk in chunks:
        outputs[index].add(chunk)
    return outputs


def new_id(prefix: str, wished: str | None) -> str:
    """An id for an answer."""
    return f"{prefix}-{wished or uuid.uuid4().hex}"


def now_s() -> int:
    """`created`: seconds since 1970, for it is a date."""
    return int(time.time())


def echoed(messages: Sequence[Message]) -> str:
    """What `echo` puts before a chat's output: the last message."""
    content = plain_message(messages[-1]).get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def usage(num_prompt: int, num_output: int, num_cached: int) -> dict[str, Any]:
    """The token counts of an answer."""
    return {
        "prompt_tokens": num_prompt,
        "total_tokens": num_prompt + num_output,
        "completion_tokens": num_output,
        "prompt_tokens_details": {"cached_tokens": num_cached},
        "completion_tokens_details": None,
    }


def finish_fields(finish: Finish | None) -> dict[str, Any]:
    """finish_reason and stop_reason; null while there is more to come."""
    if finish is None:
        return {"finish_reason": None}
    return {"finish_reason": finish.reason, "stop_reason": finish.stop}


def chat_logprobs(logprobs: Sequence[TokenLogprob], *, as_ids: bool = False) -> dict[str, Any]:
    """A chat choice's `logprobs`. `as_ids`: tokens are named `token_id:7`, not by their texts."""
    return {
        "content": [
            {
                **_entry(each.token_id, each.text, each.logprob, as_ids=as_ids),
                "top_logprobs": [_entry(*top, as_ids=as_ids) for top in each.top],
            }
            for each in logprobs
        ]
    }


def _entry(token: int, text: str, logprob: float | None, *, as_ids: bool) -> dict[str, Any]:
    name = token_name(token) if as_ids else text
    return {"token": name, "logprob": logprob, "bytes": list(text.encode())}


def token_name(token: int) -> str:
    """What a token is called where `return_tokens_as_token_ids` asks for it."""
    return f"token_id:{token}"


def completion_logprobs(
    logprobs: Sequence[TokenLogprob], first_offset: int, num_top: int, *, as_ids: bool = False
) -> dict[str, Any]:
    """A completion choice's `logprobs`. Offsets are in characters of the choice's text."""
    offsets, tokens, top = [], [], []
    offset = first_offset
    for each in logprobs:
        offsets.append(offset)
        name = token_name(each.token_id) if as_ids else each.text
        tokens.append(name)
        offset += len(each.text)
        likely = {
            token_name(token) if as_ids else text: value
            for token, text, value in each.top[:num_top]
        }
        # The token itself is always told, likely or not, as in vLLM.
        top.append(None if each.logprob is None else {name: each.logprob} | likely)
    return {
        "text_offset": offsets,
        "token_logprobs": [each.logprob for each in logprobs],
        "tokens": tokens,
        "top_logprobs": top,
    }


def prompt_logprobs(scored: Sequence[TokenLogprob]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: by token id, null for the first token."""
    return [None if each.logprob is None else each.ranked() for each in scored]

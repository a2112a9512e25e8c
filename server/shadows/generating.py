"""Sees what models that generate text are asked and answer, for their shadows."""

from collections.abc import Sequence

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    Chunk,
    GenerateRequest,
    GenerateSink,
    Generator,
    ServingError,
)
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.server.shadows.copies import Said, TextCopy
from trivet.server.shadows.mirror import MOST_BYTES, Mirror

_BYTES_PER_TOKEN = 8


class MirroredGenerator(DelegatingGenerator):
    """A Generator, asked on behalf of one client's request: its outputs are handed to a mirror."""

    def __init__(self, inner: Generator, mirror: Mirror) -> None:
        super().__init__(inner)
        self._mirror = mirror
        self._what: ChatInput | str | None = None
        """What the client said last: a conversation, or a text."""
        self._said: list[tuple[Sequence[int], Said]] = []
        """What became tokens, and which."""

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """What follows answers a conversation."""
        self._what = chat
        return await super().render(chat, account)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """What follows goes on with a text."""
        self._what = prompt
        return await super().compose(prompt, account)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """These are what is asked with, if nobody cuts them."""
        ids = await super().encode(text, add_special_tokens=add_special_tokens)
        if self._what is not None:
            self._said.append((ids, Said(self._what, add_special_tokens)))
        return ids

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        said = next((said for ids, said in self._said if ids == request.prompt_ids), None)
        self._inner.generate(request, _MirrorSink(self._mirror, request, said, sink))


class _MirrorSink:
    """Lets an output pass, and then offers it."""

    __slots__ = ("_mirror", "_parts", "_request", "_said", "_sink")

    def __init__(
        self, mirror: Mirror, request: GenerateRequest, said: Said | None, sink: GenerateSink
    ) -> None:
        self._mirror = mirror
        self._request = request
        self._said = said
        self._sink = sink
        self._parts: list[str] = []

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        self._parts.append(chunk.text)
        self._sink.chunk(chunk)
        if chunk.finish is not None:
            self._offer("".join(self._parts))

    def _offer(self, text: str) -> None:
        request, said = self._request, self._said
        size_bytes = len(request.prompt_ids) * _BYTES_PER_TOKEN + len(text)
        if request.images:  # which are larger than anything that is copied
            size_bytes += MOST_BYTES
        self._mirror.offer(lambda: TextCopy(request, said, text), size_bytes)

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._sink.fail(error)

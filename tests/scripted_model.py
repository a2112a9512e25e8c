"""A model that says what a test tells it to, behind a real HTTP server on loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from http_site import FakeCore

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    Chunk,
    Finish,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    InvalidRequest,
    Token,
    TokenLogprob,
)
from trivet.server.http.app import HttpLimits, HttpServer


class ScriptedModel:
    """A Generator whose outputs are written beforehand; remembers what it was asked."""

    def __init__(self, *, tool_call_parser: str = "hermes") -> None:
        self.info = GeneratorInfo(
            max_model_len=4096,
            vocabulary_size=1000,
            max_logprobs=5,
            dtype="float32",
            architecture="script",
            eos_token_ids=(0,),
            tool_call_parser=tool_call_parser,
        )
        self.pieces: Sequence[str] = ("Hello",)
        self.prompt = "prompt"
        """What its chat template writes."""
        self.finish = Finish("stop")
        self.waits_for: asyncio.Event | None = None
        """What the last piece waits for."""
        self.requests: list[GenerateRequest] = []
        self.rendered: list[ChatInput] = []
        self.tokens_per_message = 0
        """Of conversations; 0: a prompt has three tokens, whatever it is."""

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        self.requests.append(request)
        loop = asyncio.get_running_loop()
        *others, last = self.pieces
        for number, piece in enumerate(others):
            loop.call_soon(sink.chunk, Chunk(piece, (number,)))
        number = len(others)
        scored = () if request.sampling.logprobs is None else (TokenLogprob(number, last, -1.0),)
        end = Chunk(last, (number,), scored, self.finish)
        if self.waits_for is None:
            loop.call_soon(sink.chunk, end)
        else:
            self._late = loop.create_task(self._send_late(self.waits_for, sink, end))

    async def _send_late(self, event: asyncio.Event, sink: GenerateSink, end: Chunk) -> None:
        await event.wait()
        sink.chunk(end)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        per_message = self.tokens_per_message
        count = 3 if not per_message else per_message * len(self.rendered[-1].messages)
        if count >= self.info.max_model_len:
            raise InvalidRequest(f"the prompt is longer than {self.info.max_model_len} tokens")
        return list(range(1, count + 1))

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        return []

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return ""

    async def spellings(self, token_ids: Sequence[int]) -> list[str]:
        return [""] * len(token_ids)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        return prompt

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        if images := chat.images:
            raise InvalidRequest(f"{images[0].where}: the script reads no images")
        self.rendered.append(chat)
        return self.prompt


@asynccontextmanager
async def served(
    models: Mapping[str, Generator], limits: HttpLimits | None = None
) -> AsyncIterator[str]:
    """The base URL of a server over these models."""
    core = FakeCore(models)
    server = HttpServer(core, limits or HttpLimits(), "127.0.0.1", 0)
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.close()
        core.shared_memory.close()

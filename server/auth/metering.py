"""A generator whose tokens are paid by one caller."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import (
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    Messages,
    Token,
)
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import Allowance


class MeteredGenerator:
    """A Generator. Refuses while the caller's earlier tokens are not paid off."""

    def __init__(self, inner: Generator, allowance: Allowance) -> None:
        self._inner = inner
        self._allowance = allowance

    @property
    def info(self) -> GeneratorInfo:
        """What does not change while the model is loaded."""
        return self._inner.info

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        try:
            self._allowance.require_tokens()
        except RateLimited as error:
            sink.fail(error)
            return
        request.on_tokens = self._allowance.charge_tokens
        self._inner.generate(request, sink)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text."""
        return await self._inner.encode(text, add_special_tokens=add_special_tokens)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """The tokens of a text with their places."""
        return await self._inner.tokenize(text, add_special_tokens=add_special_tokens)

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        return await self._inner.decode(token_ids, skip_special_tokens=skip_special_tokens)

    async def render(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the model's chat template writes it."""
        return await self._inner.render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            arguments=arguments,
        )

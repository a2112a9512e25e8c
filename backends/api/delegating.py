"""The base of generators that change one thing about another."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api.generate import (
    NO_ACCOUNT,
    Account,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    Messages,
    Token,
)


class DelegatingGenerator:
    """A Generator that leaves everything to another one."""

    def __init__(self, inner: Generator) -> None:
        self._inner = inner

    @property
    def info(self) -> GeneratorInfo:
        """See Generator."""
        return self._inner.info

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """See Generator."""
        self._inner.generate(request, sink)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self._inner.compose(prompt, self._pays(account))

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """See Generator."""
        return await self._inner.encode(text, add_special_tokens=add_special_tokens)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """See Generator."""
        return await self._inner.tokenize(text, add_special_tokens=add_special_tokens)

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """See Generator."""
        return await self._inner.decode(token_ids, skip_special_tokens=skip_special_tokens)

    async def render(
        self,
        messages: Messages,
        account: Account = NO_ACCOUNT,
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """See Generator."""
        return await self._inner.render(
            messages,
            self._pays(account),
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            arguments=arguments,
        )

    def _pays(self, account: Account) -> Account:
        """On whose account prompts are made. Raises a ServingError where none is to be."""
        return account

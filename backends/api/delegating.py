"""The bases of generators that change one thing about another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from trivet.backends.api.generate import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    GenerateRequest,
    GenerateSink,
    Generator,
    GeneratorInfo,
    Token,
)


class DelegatingTokens(ABC):
    """The part of a Generator that knows about tokens, left to another one."""

    @property
    @abstractmethod
    def _inner(self) -> Generator:
        """Whom it is left to. Raises a ServingError where there is nobody."""

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """See Generator."""
        return await self._inner.encode(text, add_special_tokens=add_special_tokens)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """See Generator."""
        return await self._inner.tokenize(text, add_special_tokens=add_special_tokens)

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """See Generator."""
        return await self._inner.decode(token_ids, skip_special_tokens=skip_special_tokens)

    async def spellings(self, token_ids: Sequence[int]) -> list[str]:
        """See Generator."""
        return await self._inner.spellings(token_ids)


class DelegatingGenerator(DelegatingTokens):
    """A Generator that leaves everything to another one."""

    def __init__(self, inner: Generator) -> None:
        self._generator = inner

    @property
    def _inner(self) -> Generator:
        return self._generator

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

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """See Generator."""
        return await self._inner.render(chat, self._pays(account))

    def _pays(self, account: Account) -> Account:
        """On whose account prompts are made. Raises a ServingError where none is to be."""
        return account

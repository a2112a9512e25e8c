"""An adapter over a base, asked as a model of its own."""

from collections.abc import Mapping
from typing import Protocol

from trivet.backends.api import (
    GenerateRequest,
    GenerateSink,
    GenerateStatistics,
    GeneratorInfo,
)
from trivet.backends.llm.serving.spoken import Spoken
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer


class Base(Protocol):
    """Who computes it."""

    @property
    def stats(self) -> Mapping[str, float]:
        """The engine's last numbers."""

    @property
    def statistics(self) -> GenerateStatistics:
        """What has happened to all requests."""

    def is_ready(self) -> bool:
        """Whether the engine is there and has been heard lately."""

    def run(
        self,
        request: GenerateRequest,
        sink: GenerateSink,
        spoken: Spoken,
        adapter: str,
        key: str,
    ) -> None:
        """Has the engine compute a request of an adapter."""


class AdaptedExecutor(Spoken):
    """An Executor and a Generator. Owned by the event loop; the base ends what it has begun."""

    def __init__(
        self,
        base: Base,
        name: str,
        key: str,
        version: int,
        info: GeneratorInfo,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
    ) -> None:
        super().__init__(f"{info.parent}:{name}", version, info, tokenizer, template)
        self._base = base
        self._adapter = name
        self.key = key
        """In the engine."""

    @property
    def stats(self) -> Mapping[str, float]:
        """The engine's last numbers."""
        return self._base.stats

    @property
    def statistics(self) -> GenerateStatistics:
        """The base's, which has all."""
        return self._base.statistics

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises: every outcome goes to the sink, exactly one end."""
        self._base.run(request, sink, self, self._adapter, self.key)

    def is_ready(self) -> bool:
        """Whether the base is."""
        return self._base.is_ready()

    async def drain(self) -> None:
        """What it has begun is the base's to end."""

    async def close(self) -> None:
        """It holds nothing."""

"""Which models are cached, and what their keys hold of them."""

import os
from collections.abc import Callable
from typing import Self

from trivet.backends.api import Executor, Generator
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.cache.config import open_cache, read_cache_config
from trivet.server.cache.entry import Cache
from trivet.server.cache.executor import CachingExecutor
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.settings import Settings


class Caching:
    """The server's response cache and the models before which it stands. Owned by the loop."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._epoch = b""
        self.model_changed()

    @classmethod
    def open(cls, settings: Settings) -> Self | None:
        """None without a cache. Raises InvalidConfig or LoadFailed."""
        kind, options = read_cache_config(
            settings.cache_config, settings.response_cache_byte_size, os.environ
        )
        cache = open_cache(kind, options)
        return cls(cache) if cache is not None else None

    def model_changed(self) -> None:
        """Some model was loaded: answers of ensembles, which may use it, count no more."""
        self._epoch = os.urandom(16)

    def wrap(
        self,
        model: tuple[str, int],
        config: ModelConfig,
        digest: bytes,
        executor: Executor,
        statistics: ModelStatistics,
    ) -> Executor:
        """The executor behind the cache, if its config asks for that."""
        # Language models stream: their executors offer more than requests and answers.
        is_whole = not isinstance(executor, Generator)
        statistics.is_cached = config.response_cache.enable and is_whole
        if not statistics.is_cached:
            return executor
        own = f"{model[0]} {model[1]} ".encode() + digest
        is_ensemble = config.WhichOneof("scheduling_choice") == "ensemble_scheduling"
        whole: Callable[[], bytes] = (lambda: own + self._epoch) if is_ensemble else lambda: own
        return CachingExecutor(model, executor, self.cache, whole, statistics)

"""How many rows a request may have, and how many are computed at once, where no config says."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trivet.backends.api import About, InvalidConfig, parameter
from trivet.backends.api.completion import DEFAULT_MAX_BATCH_SIZE, DEFAULT_PARAMETER, IS_DEFAULT
from trivet.backends.api.signature import COMPUTE_PARAMETER
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

COMPUTE_BATCH_SIZE = 32
"""Larger batches gain little on a CPU and let others wait; a config may say otherwise."""
_TRITONS_KEY = "default-max-batch-size"


@dataclass(frozen=True, slots=True)
class DefaultBatchSizes:
    """Of `--default-max-batch-size` and Triton's `--backend-config`."""

    of_all: int = DEFAULT_MAX_BATCH_SIZE
    by_backend: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, of_all: int, backend_config: Sequence[str]) -> "DefaultBatchSizes":
        """`backend_config`: `[BACKEND,]KEY=VALUE`, of which one key is known here; the log names
        the others. Raises InvalidConfig."""
        by_backend: dict[str, int] = {}
        for text in backend_config:
            word, _, setting = text.rpartition(",")
            key, _, value = setting.partition("=")
            if key != _TRITONS_KEY:
                log.info("no effect here: --backend-config=%s", text)
                continue
            if not value.isdecimal() or int(value) >= 1 << 31:
                raise InvalidConfig(
                    f"--backend-config is '{text}'; {_TRITONS_KEY} must be a number of rows, such "
                    f"as --backend-config={_TRITONS_KEY}=64"
                )
            if word:
                by_backend[word] = int(value)
            else:
                of_all = int(value)
        return cls(of_all, by_backend)

    def ask(self, config: ModelConfig, about: About) -> None:
        """Tells the backend, which completes the config, in a parameter of the config."""
        if "max_batch_size" in about.completes:
            config.parameters[DEFAULT_PARAMETER].string_value = str(self._of(about))

    def settle(self, given: ModelConfig, completed: ModelConfig) -> None:
        """Takes that parameter out again. A limit that is nothing but the default is of requests:
        their rows are computed in parts."""
        is_default = parameter(completed, DEFAULT_PARAMETER) == IS_DEFAULT
        completed.parameters.pop(DEFAULT_PARAMETER, None)
        if not is_default or COMPUTE_PARAMETER in completed.parameters:
            return
        if completed.WhichOneof("scheduling_choice") != "dynamic_batching":
            return
        preferred = max(given.dynamic_batching.preferred_batch_size, default=COMPUTE_BATCH_SIZE)
        if preferred < completed.max_batch_size:
            completed.parameters[COMPUTE_PARAMETER].string_value = str(preferred)

    def _of(self, about: About) -> int:
        return self.by_backend.get(about.word, self.of_all)

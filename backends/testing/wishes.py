"""Reads the parameters that the test backends share: how long to compute, and whether to fail."""

import threading
from dataclasses import dataclass
from typing import Self

from trivet.backends.api import BackendFailed, InvalidConfig, Placement
from trivet.protos.model_config_pb2 import ModelConfig

EXCEPTION = "exception"
"""The value of `fail_with` for a failure whose text must not reach a client."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a config's parameters ask of an instance."""

    delay_s: float
    """`execute_delay_ms`, times `instance_wise_delay_multiplier` x instance index where over 1."""
    fail_with: str
    """Empty, EXCEPTION, or the text that the client gets."""

    @classmethod
    def read(cls, config: ModelConfig, placement: Placement) -> Self:
        """Raises InvalidConfig for a number that is none."""
        delay_ms = _number(config, "execute_delay_ms")
        multiplier = _number(config, "instance_wise_delay_multiplier")
        instance_index = int(placement.name.rpartition("_")[2] or 0)
        delay_s = delay_ms / 1000 * max(1.0, multiplier * instance_index)
        return cls(delay_s, config.parameters["fail_with"].string_value)

    def grant(self, closed: threading.Event) -> None:
        """Waits, at most until closed, and raises if asked to fail."""
        if self.delay_s:
            closed.wait(self.delay_s)
        if self.fail_with == EXCEPTION:
            raise RuntimeError("token=swordfish: a foreign exception, whose text stays in the log")
        if self.fail_with:
            raise BackendFailed(self.fail_with)


def _number(config: ModelConfig, name: str) -> float:
    text = config.parameters[name].string_value or "0"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be a number from 0, got '{text}'"
        )
    return value

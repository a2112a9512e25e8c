"""Backend `repeat` (decoupled): one response per element of IN, each after its DELAY."""

import threading
import time
from collections.abc import Iterator

import numpy as np

from trivet.backends.api import CheckedRequest, Tensor
from trivet.backends.testing.configured import ConfiguredBackend, require_decoupled
from trivet.backends.testing.streams import StreamInstance

_LOOK_S = 0.05
"""How soon a cancellation is seen."""


def repeat(request: CheckedRequest, closed: threading.Event) -> Iterator[list[Tensor]]:
    """OUT [1] = IN[i] and IDX [1] = i (UINT32), after DELAY[i] milliseconds (0 when not given)."""
    values = request.inputs["IN"].numpy().reshape(-1)
    delays_ms = _milliseconds(request, "DELAY")
    for index in range(values.size):
        delay_ms = float(delays_ms[index]) if index < delays_ms.size else 0.0
        if delay_ms and not _wait(delay_ms / 1000, request, closed):
            return
        yield [
            Tensor.of("OUT", values[index : index + 1]),
            Tensor.of("IDX", np.array([index], dtype=np.uint32)),
        ]


def _wait(delay_s: float, request: CheckedRequest, closed: threading.Event) -> bool:
    """Waits; False as soon as nobody wants the rest."""
    end_s = time.monotonic() + delay_s
    while (left_s := end_s - time.monotonic()) > 0:
        if request.cancel.cancelled or closed.wait(min(left_s, _LOOK_S)):
            return False
    return True


def wait_s(request: CheckedRequest) -> float:
    """How long `execute` itself takes: WAIT milliseconds."""
    return float(_milliseconds(request, "WAIT").sum()) / 1000


def _milliseconds(request: CheckedRequest, name: str) -> np.ndarray:
    tensor = request.inputs.get(name)
    return np.empty(0) if tensor is None else tensor.numpy().reshape(-1)


BACKEND = ConfiguredBackend(
    require_decoupled, lambda _config, _placement: StreamInstance(repeat, wait_s)
)

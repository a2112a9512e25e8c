"""Backend `square` (decoupled): for IN = n, n responses with OUT = n."""

import threading
from collections.abc import Iterator

from trivet.backends.api import CheckedRequest, Tensor
from trivet.backends.testing.configured import ConfiguredBackend, require_decoupled
from trivet.backends.testing.streams import StreamInstance


def square(request: CheckedRequest, _closed: threading.Event) -> Iterator[list[Tensor]]:
    """IN has one element; OUT has its shape."""
    tensor = request.inputs["IN"]
    for _ in range(int(tensor.numpy().reshape(-1)[0])):
        yield [tensor.renamed("OUT", tensor.shape)]


def _no_wait_s(_request: CheckedRequest) -> float:
    return 0.0


BACKEND = ConfiguredBackend(
    require_decoupled, lambda _config, _placement: StreamInstance(square, _no_wait_s)
)

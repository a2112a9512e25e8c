"""What an executor of its own kind tells the server, which counts it."""

from typing import Protocol, runtime_checkable

from trivet.backends.api.copies import CopyKind
from trivet.backends.api.errors import ServingError


class Observer(Protocol):
    """Counts the requests of one model version. Called on the event loop only."""

    def succeeded(self, batch_size: int, total_ns: int) -> None:
        """A request was answered so long after its arrival."""

    def failed(self, error: ServingError, total_ns: int) -> None:
        """A request ended without an answer."""

    def first_response(self, elapsed_ns: int) -> None:
        """A request's first response, so long after its arrival."""

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """Tensor bytes were copied."""

    def synchronised(self, count: int) -> None:
        """The model waited so many times for a device."""


@runtime_checkable
class Observed(Protocol):
    """An instance that brings its executor and has the server count its requests."""

    def observe(self, observer: Observer) -> None:
        """Called once, before `make_executor`."""

"""What those who handle a request tell its trace, if it has one. Knows not who collects it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trivet.backends.api.batch import Batch, CopyKind
from trivet.backends.api.sink import Sink

if TYPE_CHECKING:
    from trivet.backends.api.request import InferRequest


@dataclass(frozen=True, slots=True)
class Execution:
    """When a request waited and was computed, by the monotonic clock."""

    queued_ns: int
    started_ns: int
    gathered_ns: int
    """Inputs were in place."""
    computed_ns: int
    ended_ns: int
    """Outputs were in place."""
    batch: Batch | None
    """What it was computed in; None where that is not known any more."""


class Trace(Protocol):
    """A model's part in a traced request. Called on the event loop only."""

    @property
    def traceparent(self) -> str:
        """The W3C header that makes what is done elsewhere a part of this one."""

    def begin(self, request: "InferRequest", version: int, sink: Sink) -> Sink:
        """A model begins with a request on this one's behalf: gives the request a part of its own,
        and returns the sink that ends it."""

    def executed(self, execution: Execution) -> None:
        """The request was computed."""

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """Tensor bytes were copied other than by an execution."""

"""What those who handle a request tell its trace, if it has one. Knows not who collects it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trivet.backends.api.batch import Batch, CopyKind
from trivet.backends.api.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trivet.backends.api.request import InferRequest
    from trivet.backends.api.tensor import Tensor


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

    def begin(
        self, request: "InferRequest", version: int, inputs: "Mapping[str, Tensor]"
    ) -> "Trace":
        """This version of the request's model begins with it on this one's behalf, with these
        inputs: returns the model's own part."""

    def ending(self, sink: Sink) -> Sink:
        """A sink in front of another, which ends this part."""

    def executed(self, execution: Execution) -> None:
        """The request was computed."""

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """Tensor bytes were copied other than by an execution."""

"""A request's place in a scheduler: what the executor knows of it beyond what was asked."""

from dataclasses import dataclass

from trivet.backends.api import CheckedRequest, InferRequest, ServingError, Sink
from trivet.backends.api.value import record


# Not frozen and compared by identity: one is made per request on the hot path.
@record
class Ticket:
    """A submitted request, from its arrival to its end. Owned by the event loop."""

    request: CheckedRequest
    sink: Sink
    arrived_ns: int
    expires_ns: int = 0
    """When it has waited too long, on the monotonic clock; 0 never."""
    level: int = 0
    """Priority level, 1 is the highest; 0 where the model has none."""
    join_key: object = None
    """Requests are joined into a batch only when their keys are equal."""
    length: int = 0
    """Of the longest of its rows, about, where batches cost by it."""
    started_ns: int = 0
    num_responses: int = 0
    is_ended: bool = False


def labelled(request: InferRequest | CheckedRequest, text: str) -> str:
    """The text with the request's id before it, as Triton's core writes it."""
    return f"[request id: {request.id or '<id_unknown>'}] {text}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A ticket that must not be computed, and why."""

    ticket: Ticket
    error: ServingError

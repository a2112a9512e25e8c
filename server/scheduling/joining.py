"""Which requests can be computed as one batch. Pure."""

from collections.abc import Callable, Sequence
from typing import Protocol

from trivet.backends.api import Batch, CheckedRequest, ResponseSender, Signature
from trivet.server.scheduling.ticket import Ticket

JoinKey = Callable[[CheckedRequest], object]
LengthOf = Callable[[CheckedRequest], int]


class MakeBatch(Protocol):
    """Makes a batch of requests that can be joined."""

    def __call__(
        self,
        requests: Sequence[CheckedRequest],
        *,
        batching: bool,
        senders: Sequence[ResponseSender] = (),
    ) -> Batch: ...


def join_key_of(signature: Signature) -> JoinKey | None:
    """What must be equal for requests to be joined; None when the signature fixes all of it."""
    specs = signature.inputs.values()
    if not any(spec.optional or (-1 in spec.model_dims and not spec.is_ragged) for spec in specs):
        return None
    ragged = frozenset(spec.name for spec in specs if spec.is_ragged)
    if not ragged:
        return lambda request: tuple([(t.name, t.shape[1:]) for t in request.inputs.values()])
    return lambda request: tuple(
        (t.name, () if t.name in ragged else t.shape[1:]) for t in request.inputs.values()
    )


def marker_of(
    join_key: JoinKey | None, length_of: LengthOf | None
) -> Callable[[Ticket], None] | None:
    """Writes on a ticket what its joining goes by; None where all tickets are alike."""
    if length_of is None:
        return None if join_key is None else _keyed(join_key)

    def mark(ticket: Ticket) -> None:
        ticket.length = length_of(ticket.request)
        if join_key is not None:
            ticket.join_key = join_key(ticket.request)

    return mark


def _keyed(join_key: JoinKey) -> Callable[[Ticket], None]:
    def mark(ticket: Ticket) -> None:
        ticket.join_key = join_key(ticket.request)

    return mark

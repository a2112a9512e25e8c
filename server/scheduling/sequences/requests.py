"""What the model sees of a sequence's request: the client's inputs, control inputs and state."""

from dataclasses import dataclass

import numpy as np

from trivet.backends.api import (
    CheckedRequest,
    InferResponse,
    Parameters,
    ServingError,
    Signature,
    Tensor,
)
from trivet.server.scheduling.joining import JoinKey, join_key_of
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.sequences.sequence import Sequence, SequenceTicket


class Placeholder:
    """Where the answers to a batch position without a request go: nowhere. Sink and sender."""

    __slots__ = ()

    def send(
        self,
        response: InferResponse | list[Tensor],
        *,
        final: bool = False,
        parameters: Parameters | None = None,
    ) -> None:
        """Drops it."""

    def finish(self) -> None:
        """Nothing waits."""

    def fail(self, error: ServingError) -> None:
        """Nobody is told."""


@dataclass(frozen=True, slots=True)
class SequenceRequests:
    """Makes the requests of one model's batches."""

    plan: SequencePlan
    base_key: JoinKey | None

    @classmethod
    def of(cls, plan: SequencePlan, signature: Signature) -> "SequenceRequests":
        return cls(plan, join_key_of(signature))

    def join_key(self, sequence: Sequence) -> object:
        """Of its first waiting request: what must be equal in a batch."""
        ticket = sequence.waiting[0]
        key = self.base_key(ticket.request) if self.base_key is not None else None
        state = self.plan.state
        if state is None or not state.has_variable_shape:
            return key
        return key, state.shapes(sequence, is_start=ticket.is_start)

    def of_ticket(self, ticket: SequenceTicket) -> CheckedRequest:
        """The client's request with what the model learns about its sequence."""
        asked, sequence, plan = ticket.request, ticket.sequence, self.plan
        assert sequence is not None
        inputs = dict(asked.inputs)
        plan.controls.add(inputs, (ticket.is_start, True, ticket.is_end), sequence.id)
        wanted = asked.output_names
        if plan.state is not None:
            plan.state.add(inputs, sequence, is_start=ticket.is_start)
            if wanted:
                wanted = (*wanted, *(n for n in plan.state.specs if n not in wanted))
        return CheckedRequest(
            asked.model_name,
            asked.model_version,
            asked.id,
            inputs,
            wanted,
            asked.parameters,
            asked.priority,
            asked.timeout_us,
            sequence.id,
            ticket.is_start,
            ticket.is_end,
            asked.batch_size,
            asked.cancel,
            asked.deadline,
            asked.callers,
            asked.residence,
            asked.on_tokens,
            asked.tenant,
            asked.trace,
            asked.window,
        )

    def placeholder(self, mate: CheckedRequest) -> SequenceTicket:
        """For a batch position that has nothing to run: zeros in the shapes of a mate's inputs."""
        inputs = {name: _zeros(tensor) for name, tensor in mate.inputs.items()}
        self.plan.controls.add(inputs, (False, False, False), None)
        if self.plan.state is not None:
            for name in (spec.input_name for spec in self.plan.state.specs.values()):
                inputs[name] = _zeros(mate.inputs[name])
        request = CheckedRequest(mate.model_name, mate.model_version, "", inputs)
        return SequenceTicket(request, Placeholder(), 0, is_ended=True)


def _zeros(tensor: Tensor) -> Tensor:
    if tensor.datatype.size == 0:
        values = np.full(tensor.shape, b"", dtype=object)
    else:
        values = np.zeros(tensor.shape, dtype=tensor.datatype.dtype)
    return Tensor(tensor.name, tensor.datatype, tensor.shape, values)

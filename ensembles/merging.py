"""Requests that arrive together go through the steps as one: one tensor, one request a step.

They are joined where the first step's batcher would have joined them, so this copies nothing more;
after it nothing is copied at all. Only requests that cannot tell the difference are joined, and if
the joint one fails for a reason that may be one member's, each is run by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    CheckedRequest,
    DeadlineExceeded,
    InferResponse,
    PackedBytes,
    ServingError,
    Sink,
    Tensor,
    Unavailable,
    parameter,
)
from trivet.backends.api.tensor import join_rows
from trivet.ensembles.graph import Graph
from trivet.ensembles.settings import MERGE_REQUESTS, StepSettings

SHARED = (Unavailable, Cancelled, DeadlineExceeded)
"""Failures that would meet each member by itself too."""


def can_merge(graph: Graph) -> bool:
    """Whether the steps take batches only and look at nothing but their inputs' rows.

    Where a step makes tensors of variable dims, such as token ids, their padding may depend on the
    rows beside them: then only if the config's parameter says so.
    """
    plain = StepSettings()
    if graph.signature.max_batch_size < 2 or not all(
        step.settings == plain
        and step.signature.batching
        and not step.signature.decoupled
        and all(edge.shift == 0 for edge in step.inputs)
        for step in graph.steps
    ):
        return False
    given = parameter(graph.config, MERGE_REQUESTS, "auto")
    made = (spec for step in graph.steps for spec in step.signature.outputs.values())
    return given == "true" or (given == "auto" and not any(-1 in spec.dims for spec in made))


def is_plain(request: CheckedRequest) -> bool:
    """Whether a request says nothing that others beside it do not."""
    return not (
        request.parameters
        or request.priority
        or request.timeout_us
        or request.sequence_id
        or request.callers
        or request.trace is not None
        or request.deadline is not None
        or request.residence
        or request.on_tokens is not None
        or any(tensor.device is not None for tensor in request.inputs.values())
    )


@dataclass(slots=True, eq=False)
class Member:
    """A request on its way with others."""

    request: CheckedRequest
    sink: Sink
    arrived_ns: int


def groups_of(arrived: Sequence[Member], max_batch_size: int) -> list[list[Member]]:
    """Members that can go together, in their order, of up to so many rows."""
    groups: list[list[Member]] = []
    open_groups: dict[object, tuple[list[Member], int]] = {}
    for member in arrived:
        request = member.request
        key = (
            request.tenant,
            request.output_names,
            tuple((name, tensor.shape[1:]) for name, tensor in request.inputs.items()),
        )
        group, size = open_groups.get(key, ([], max_batch_size))
        if size + request.batch_size > max_batch_size:
            group, size = [], 0
            groups.append(group)
        group.append(member)
        open_groups[key] = group, size + request.batch_size
    return groups


def merged_request(members: Sequence[Member], copied: Callable[[int], None]) -> CheckedRequest:
    """One request of all members' rows, in order. Tells how many bytes were copied for it."""
    first = members[0].request
    inputs = {
        name: _joined([member.request.inputs[name] for member in members], copied)
        for name in first.inputs
    }
    return CheckedRequest(
        first.model_name,
        first.model_version,
        first.id,
        inputs,
        first.output_names,
        batch_size=sum(member.request.batch_size for member in members),
        cancel=CancelToken(),
        tenant=first.tenant,
    )


def _joined(tensors: Sequence[Tensor], copied: Callable[[int], None]) -> Tensor:
    first = tensors[0]
    data: np.ndarray | PackedBytes | None = join_rows(tensors)
    if data is None and all(isinstance(tensor.data, PackedBytes) for tensor in tensors):
        data = PackedBytes.join([tensor.packed() for tensor in tensors])
        copied(len(data.blob))
    if data is None:
        data = np.concatenate([tensor.numpy() for tensor in tensors])
        copied(data.nbytes)
    size = sum(tensor.shape[0] for tensor in tensors)
    return Tensor(first.name, first.datatype, (size, *first.shape[1:]), data)


class MergedSink:
    """Hands each member its rows of the joint answer, as views."""

    __slots__ = ("_alone", "_left", "_members", "_succeeded", "_token")

    def __init__(
        self,
        members: list[Member],
        token: CancelToken,
        succeeded: Callable[[Member, InferResponse], None],
        alone: Callable[[Member, ServingError], None],
    ) -> None:
        self._members = members
        self._succeeded = succeeded
        self._alone = alone
        self._token = token
        self._left = len(members)
        for member in members:
            member.request.cancel.on_cancel(self._one_less)

    def _one_less(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._token.cancel()

    def send(self, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002 - the only one
        start = 0
        for member in self._let_go():
            stop = start + member.request.batch_size
            outputs = [_rows(tensor, start, stop) for tensor in response.outputs]
            own = InferResponse(
                response.model_name, response.model_version, member.request.id, outputs
            )
            if response.parameters:
                own.parameters = response.parameters
            self._succeeded(member, own)
            start = stop

    def finish(self) -> None:
        self.fail(Unavailable("ended without an answer"))

    def fail(self, error: ServingError) -> None:
        for member in self._let_go():
            self._alone(member, error)

    def _let_go(self) -> list[Member]:
        """The members, whose cancel tokens refer here."""
        members, self._members = self._members, []
        return members


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    data = tensor.data
    shape = (stop - start, *tensor.shape[1:])
    if isinstance(data, PackedBytes):
        width = len(data) // tensor.shape[0]
        return Tensor(tensor.name, tensor.datatype, shape, data.slice(start * width, stop * width))
    part = Tensor(tensor.name, tensor.datatype, shape, data[start:stop])
    part.rows = (data, start)
    return part

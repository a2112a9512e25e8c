"""`map`: a step for each element of a list, and the answers gathered into a list again."""

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    CopyKind,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ModelServer,
    Observer,
    PackedBytes,
    ServingError,
    Shape,
    Tensor,
)
from trivet.backends.api.tensor import join_rows
from trivet.ensembles.adapting import elements
from trivet.ensembles.calls import Question, Receiver, call_model
from trivet.ensembles.graph import Edge, Step

MAX_ELEMENTS = 65536


class MappedCall:
    """Calls a step's model once for each element; its batcher joins them again.

    Elements lie one after another in the list's memory, so neither the way in nor the way out
    copies what stays together.
    """

    def __init__(
        self, receiver: Receiver, step: Step, question: Question, num_lists: int, asks: Observer
    ) -> None:
        self._receiver = receiver
        self._step = step
        self._question = question
        self._num_lists = num_lists
        self._observer = asks
        self._answers: list[InferResponse | None] = []
        self._left = 0
        self._list_shape: Shape = ()

    def start(self, lists: dict[str, Tensor], server: ModelServer) -> None:
        """Begins all calls. Raises InvalidRequest where lists differ in length."""
        shapes = {tensor.shape[: self._num_lists] for tensor in lists.values()}
        if len(shapes) != 1:
            raise InvalidRequest(
                f"{self._step.title} maps over {self._step.settings.map}, whose lists differ in "
                f"length: {sorted(map(list, shapes))}"
            )
        (self._list_shape,) = shapes
        batching = self._step.signature.batching
        parts = {
            edge.name: elements(lists[edge.name], self._num_lists, edge.name, batching=batching)
            for edge in self._step.inputs
            if edge.name in lists
        }
        count = self._left = len(next(iter(parts.values())))
        if count > MAX_ELEMENTS:
            raise InvalidRequest(
                f"{self._step.title} maps over {count} elements; at most {MAX_ELEMENTS} are allowed"
            )
        self._answers = [None] * count
        if not count:
            self._deliver()
        for index in range(count):
            request = self._element_request({name: each[index] for name, each in parts.items()})
            question = Question(request, self._question.context)
            call_model(_Element(self, index), self._step, question, server)

    def _element_request(self, elements_: dict[str, Tensor]) -> InferRequest:
        whole = self._question.request
        return InferRequest(
            whole.model_name, whole.model_version, whole.id, {**whole.inputs, **elements_},
            whole.output_names, whole.parameters, whole.priority, whole.timeout_us,
            whole.sequence_id, whole.sequence_start, whole.sequence_end,
        )  # fmt: skip

    def element_answered(self, index: int, response: InferResponse) -> None:
        """One element's answer."""
        self._answers[index] = response
        self._left -= 1
        if self._left == 0:
            self._deliver()

    def element_failed(self, error: ServingError) -> None:
        """The first failure is the step's."""
        if self._left > 0:
            self._left = -1
            self._answers = []
            self._receiver.failed(self._step, error)

    def _deliver(self) -> None:
        answers = [answer for answer in self._answers if answer is not None]
        self._answers = []
        made = [self._gathered(edge, answers) for edge in self._step.outputs]
        outputs = [tensor for tensor in made if tensor is not None]
        response = InferResponse(self._step.model, self._step.version or 0, "", outputs)
        self._receiver.answered(self._step, response, final=True)

    def _gathered(self, edge: Edge, answers: list[InferResponse]) -> Tensor | None:
        tensors = [t for answer in answers for t in answer.outputs if t.name == edge.name]
        spec = self._step.signature.outputs[edge.name]
        if not answers:
            dims = tuple(max(dim, 0) for dim in spec.dims)
            data = np.empty((*self._list_shape, *dims), dtype=spec.datatype.dtype)
            return Tensor(edge.name, spec.datatype, data.shape, data)
        if len(tensors) != len(answers):
            return None
        whole = tensors[0].numpy() if len(tensors) == 1 else None
        if whole is None and self._step.signature.batching:
            whole = join_rows(tensors)
        if whole is None:
            whole = self._copied(tensors)
        dims = tensors[0].shape[1:] if self._step.signature.batching else tensors[0].shape
        data = whole.reshape((*self._list_shape, *dims))
        return Tensor(edge.name, spec.datatype, data.shape, data)

    def _copied(self, tensors: list[Tensor]) -> np.ndarray:
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) != 1:
            raise InvalidRequest(
                f"{self._step.title} gives elements of different shapes, "
                f"{sorted(map(list, shapes))[:8]}, which make no list"
            )
        join = np.concatenate if self._step.signature.batching else np.stack
        whole = join([tensor.numpy() for tensor in tensors])
        if not isinstance(tensors[0].data, PackedBytes):
            self._observer.copied(CopyKind.GATHER, whole.nbytes)
            if self._question.context.trace is not None:
                self._question.context.trace.copied(CopyKind.GATHER, whole.nbytes)
        return whole


class _Element:
    """Receives the answer for one element."""

    __slots__ = ("_call", "_index")

    def __init__(self, call: MappedCall, index: int) -> None:
        self._call = call
        self._index = index

    def answered(self, step: Step, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002
        self._call.element_answered(self._index, response)

    def finished(self, step: Step) -> None:
        self._call.element_failed(BackendFailed(f"{step.title} ended without an answer"))

    def failed(self, step: Step, error: ServingError) -> None:  # noqa: ARG002
        self._call.element_failed(error)

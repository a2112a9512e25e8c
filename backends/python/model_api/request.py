"""A request as user code sees it."""

import json
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Literal, overload

from trivet.backends.api import (
    CheckedRequest,
    InferRequest,
    Parameters,
    RequestContext,
    Window,
    inherited_jointly,
    joint_priority,
)
from trivet.backends.api.value import changed
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.fields import number_of, parameters_of, text_of
from trivet.backends.python.model_api.nested import (
    MOST_KEPT,
    Calling,
    Responses,
    current,
    only,
)
from trivet.backends.python.model_api.response import InferenceResponse
from trivet.backends.python.model_api.room import MOST_AHEAD
from trivet.backends.python.model_api.sender import InferenceResponseSender
from trivet.backends.python.model_api.tensor import InputTensor, Tensor

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2
TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_GPU = 1


class PreferredMemory:
    """Where the outputs of a nested request should lie. Accepted; outputs lie in host memory."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self.preferred_memory_type = preferred_memory_type
        self.preferred_device_id = preferred_device_id


class InferenceTrace:
    """The trace of a request."""

    def __init__(self, traceparent: str = "") -> None:
        self._traceparent = traceparent

    def get_context(self) -> str | None:
        """The W3C context as a JSON object of headers; None if the request is not traced."""
        return json.dumps({"traceparent": self._traceparent}) if self._traceparent else None


class InferenceRequest:
    """A request to this model, or one that user code makes for another model."""

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,  # noqa: ARG002 - Triton's signature
        trace: InferenceTrace | None = None,
        parameters: Parameters | None = None,
    ) -> None:
        self._id = request_id
        self._correlation_id = correlation_id
        self._inputs = list(inputs)
        self._output_names = list(requested_output_names)
        self._model_name = model_name
        self._model_version = model_version
        self._flags = flags
        self._timeout = timeout
        self._trace = trace
        self._parameters = parameters or {}

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._id

    def correlation_id(self) -> int | str:
        """The sequence's id; 0 outside of a sequence."""
        return self._correlation_id

    def requested_output_names(self) -> list[str]:
        """What the client asked for; all outputs of the model when it named none."""
        return self._output_names

    def model_name(self) -> str:
        return self._model_name

    def model_version(self) -> int:
        return self._model_version

    def flags(self) -> int:
        """TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and _END, or-ed."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        self._flags = flags

    def timeout(self) -> int:
        """The request parameter `timeout`, in microseconds; 0 for none."""
        return self._timeout

    def parameters(self) -> str:
        """The request's parameters as a JSON object."""
        return json.dumps(dict(self._parameters))

    def trace(self) -> InferenceTrace:
        return self._trace or InferenceTrace()

    def is_cancelled(self) -> bool:
        return False

    def get_response_sender(self) -> InferenceResponseSender:
        raise TritonModelException("only a request to this model has a response sender")

    def set_release_flags(self, flags: int) -> None:
        """Only a request to this model can be rescheduled."""
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL:
            raise TritonModelException("only a request to this model can be rescheduled")

    @overload
    def exec(self, decoupled: Literal[False] = ...) -> InferenceResponse: ...
    @overload
    def exec(self, decoupled: Literal[True]) -> Responses: ...
    def exec(self, decoupled: bool = False) -> InferenceResponse | Responses:  # noqa: FBT001, FBT002
        """Asks the model and waits for its response: an error is in the response, not raised.

        `decoupled`: gives an iterator over the responses, as they come. Raises
        TritonModelException where no model can be asked.
        """
        calling = current()
        request = self._to_api(calling)
        responses = Responses(calling, request, self._context(calling, decoupled=decoupled))
        if decoupled:
            return responses
        found = list(islice(responses, MOST_KEPT))
        responses.cancel()
        return only(self._model_name, found)

    @overload
    async def async_exec(self, decoupled: Literal[False] = ...) -> InferenceResponse: ...
    @overload
    async def async_exec(self, decoupled: Literal[True]) -> Responses: ...
    async def async_exec(
        self,
        decoupled: bool = False,  # noqa: FBT001, FBT002
    ) -> InferenceResponse | Responses:
        """As `exec`, for coroutines: others run meanwhile. So they do in an `async for` over the
        responses of a decoupled model; a plain `for` takes the thread."""
        calling = current()
        request = self._to_api(calling)
        responses = Responses(calling, request, self._context(calling, decoupled=decoupled))
        if decoupled:
            return responses
        found: list[InferenceResponse] = []
        async for response in responses:
            found.append(response)
            if len(found) == MOST_KEPT:
                break
        responses.cancel()
        return only(self._model_name, found)

    def _to_api(self, calling: Calling) -> InferRequest:
        """The request as the server takes it. Raises TritonModelException for what cannot be
        sent."""
        name = text_of(self._model_name, "model_name")
        if not name:
            raise TritonModelException("model_name is empty: name the model to ask")
        inputs = {tensor.name(): tensor.to_api() for tensor in map(_as_tensor, self._inputs)}
        version = number_of(self._model_version, "model_version", -1, 2**63 - 1)
        flags = number_of(self._flags, "flags", 0, 2**32 - 1)
        return InferRequest(
            name,
            version if version >= 0 else None,
            text_of(self._id, "request_id"),
            inputs,
            tuple(text_of(each, "a requested output name") for each in self._output_names),
            parameters_of(self._parameters, "request parameters"),
            joint_priority(calling.parents),
            number_of(self._timeout, "timeout", 0, 2**63 - 1),
            _correlation_id(self._correlation_id),
            bool(flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
            bool(flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
        )

    def _context(self, calling: Calling, *, decoupled: bool) -> RequestContext:
        window = Window(MOST_AHEAD, is_soft=True) if decoupled else None
        context = inherited_jointly(calling.parents, calling.model_name, window)
        if not self._timeout:
            return context
        ends_at = time.monotonic() + self._timeout / 1e6
        return changed(context, deadline=min(context.deadline or ends_at, ends_at))


class ReceivedRequest(InferenceRequest):
    """A request to this model."""

    def __init__(
        self,
        request: CheckedRequest,
        output_names: list[str],
        make_sender: Callable[[], InferenceResponseSender],
        *,
        is_iterative: bool = False,
    ) -> None:
        flags = TRITONSERVER_REQUEST_FLAG_SEQUENCE_START if request.sequence_start else 0
        flags |= TRITONSERVER_REQUEST_FLAG_SEQUENCE_END if request.sequence_end else 0
        super().__init__(
            request.id,
            request.sequence_id,
            [InputTensor(tensor) for tensor in request.inputs.values()],
            request.output_names or output_names,
            request.model_name,
            request.model_version,
            flags,
            request.timeout_us,
            trace=InferenceTrace(request.trace.traceparent) if request.trace else None,
            parameters=request.parameters,
        )
        self._cancel = request.cancel
        self._make_sender = make_sender
        self._sender: InferenceResponseSender | None = None
        self._is_iterative = is_iterative
        self.is_rescheduled = False

    def set_release_flags(self, flags: int) -> None:
        """TRITONSERVER_REQUEST_RELEASE_RESCHEDULE: `execute` is to be called with it once more.

        Raises TritonModelException unless the config has `iterative_sequence`.
        """
        if flags not in (TRITONSERVER_REQUEST_RELEASE_ALL, TRITONSERVER_REQUEST_RELEASE_RESCHEDULE):
            raise TritonModelException(f"unknown release flags {flags}")
        if flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE and not self._is_iterative:
            raise TritonModelException(
                "a request can be rescheduled only where the config has "
                "sequence_batching { iterative_sequence: true }"
            )
        self.is_rescheduled = flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancel.cancelled

    def _to_api(self, calling: Calling) -> InferRequest:
        raise TritonModelException(
            f"exec() asks another model: make an InferenceRequest for it; this one is the request "
            f"to '{calling.model_name}' itself"
        )

    def get_response_sender(self) -> InferenceResponseSender:
        """Answers this request, now or after `execute` has returned."""
        if self._sender is None:
            self._sender = self._make_sender()
        return self._sender


def _as_tensor(given: object) -> Tensor:
    if not isinstance(given, Tensor):
        raise TritonModelException(f"inputs must hold pb_utils.Tensor, not {type(given).__name__}")
    return given


def _correlation_id(given: object) -> int | str:
    if isinstance(given, str):
        return text_of(given, "correlation_id")
    return number_of(given, "correlation_id", 0, 2**64 - 1)


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name, or None."""
    for tensor in inference_request.inputs():
        if tensor.name() == name:
            return tensor
    return None

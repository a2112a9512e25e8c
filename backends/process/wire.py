"""Requests, batches and errors as JSON headers and runs of tensors, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CancelToken,
    CheckedRequest,
    CopyKind,
    DataType,
    Execution,
    InferRequest,
    PackedBytes,
    RequestContext,
    ResponseSender,
    ServingError,
    Sink,
    Tensor,
    Window,
)
from trivet.backends.api import errors as error_classes
from trivet.backends.api.model_server import shared_client, shared_payer, shared_tenant
from trivet.backends.process.channel import Header
from trivet.backends.process.link import Message, Run

_ERRORS = {
    name: value
    for name, value in vars(error_classes).items()
    if isinstance(value, type) and issubclass(value, ServingError)
}


def encode_error(error: ServingError) -> Header:
    # A backend's own kind of error is, over there, the one of the contract that it comes from.
    known = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return {"error": known, "message": error.message}


def decode_error(header: Header) -> ServingError:
    return _ERRORS.get(header["error"], BackendFailed)(header["message"])


def encode_batch(batch: Batch, first_token: int) -> tuple[Header, list[list[Tensor]]]:
    """An `execute` message. Later messages about its requests name them by tokens: the first one
    has this, the others those that follow."""
    requests = batch.requests
    first = requests[0]
    header: Header = {
        "op": "execute",
        "batching": batch.batching,
        "decoupled": bool(batch.senders),
        "token": first_token,
        "model": first.model_name,
        "version": first.model_version,
        "requests": [_encode_checked(request) for request in requests],
    }
    return header, [[request.inputs[name] for request in requests] for name in first.inputs]


def _encode_checked(request: CheckedRequest) -> Header:
    header: Header = {"id": request.id, "batch_size": request.batch_size}
    _encode_wishes(header, request, request)
    return header


def encode_request(
    request: InferRequest | CheckedRequest, context: RequestContext | CheckedRequest, token: int
) -> Header:
    """A request without its inputs, which travel as runs; `token` names it in later messages."""
    header: Header = {
        "token": token,
        "model": request.model_name,
        "version": request.model_version,
        "id": request.id,
    }
    _encode_wishes(header, request, context)
    return header


def _encode_wishes(
    header: Header, request: InferRequest | CheckedRequest, context: RequestContext | CheckedRequest
) -> None:
    """What most requests do not have."""
    if request.output_names:
        header["outputs"] = request.output_names
    if request.parameters:
        header["parameters"] = dict(request.parameters)
    if request.sequence_id:
        header["sequence"] = [request.sequence_id, request.sequence_start, request.sequence_end]
    if request.priority or request.timeout_us or context.deadline is not None:
        header["schedule"] = [request.priority, request.timeout_us, context.deadline]
    if context.window is not None:
        header["window"] = [context.window.size, context.window.is_soft]
    if context.trace is not None:
        header["traceparent"] = context.trace.traceparent
    if context.callers:
        header["callers"] = context.callers
    if context.cancel.cancelled:
        header["cancelled"] = True


@dataclass(frozen=True, slots=True)
class CarriedTrace:
    """A `Trace` in an instance process: what is known of it there. The server writes it."""

    traceparent: str

    def begin(
        self,
        request: InferRequest,  # noqa: ARG002
        version: int,  # noqa: ARG002
        inputs: Mapping[str, Tensor],  # noqa: ARG002
    ) -> "CarriedTrace":
        return self

    def ending(self, sink: Sink) -> Sink:
        return sink

    def executed(self, execution: Execution) -> None:  # noqa: ARG002
        return

    def copied(self, kind: CopyKind, size_bytes: int) -> None:  # noqa: ARG002
        return


class ReceivedBatch(Batch):
    """A batch whose inputs lie joined in memory, so that `gather` copies nothing."""

    __slots__ = ("_runs",)

    def __init__(
        self,
        requests: Sequence[CheckedRequest],
        runs: dict[str, Run],
        *,
        batching: bool,
        senders: Sequence[ResponseSender],
    ) -> None:
        super().__init__(requests, batching=batching, senders=senders)
        self._runs = runs

    def gather(self, name: str) -> np.ndarray | None:
        run = self._runs.get(name)
        if (
            run is None
            or len(run.tensors) == 1
            or isinstance(run.tensors[0].data, np.ndarray) is False
        ):
            return super().gather(name)
        first = run.tensors[0]
        return run.whole.view(first.datatype.dtype).reshape((self.size, *first.shape[1:]))


def decode_batch(
    message: Message,
    register: Callable[[int], CancelToken],
    make_sender: Callable[[int, CheckedRequest], ResponseSender],
) -> ReceivedBatch:
    """The batch of an `execute` message, with cancel tokens and senders by request token."""
    header, runs = message.header, message.runs
    model, first_token = (header["model"], header["version"]), header["token"]
    requests = [
        _decode_checked(each, model, register(first_token + index), index, runs)
        for index, each in enumerate(header["requests"])
    ]
    senders = []
    if header["decoupled"]:
        senders = [make_sender(first_token + i, each) for i, each in enumerate(requests)]
    by_name = {run.tensors[0].name: run for run in runs}
    return ReceivedBatch(requests, by_name, batching=header["batching"], senders=senders)


def _decode_checked(
    header: Header, model: tuple[str, int], cancel: CancelToken, index: int, runs: list[Run]
) -> CheckedRequest:
    """The request of a batch with tensor `index` of each run."""
    inputs = {run.tensors[index].name: run.tensors[index] for run in runs}
    if len(header) == 2:
        # The usual one, written out: it has an id and a batch size.
        return CheckedRequest(
            *model, header["id"], inputs, batch_size=header["batch_size"], cancel=cancel
        )
    sequence_id, sequence_start, sequence_end = header.get("sequence", (0, False, False))
    priority, timeout_us, deadline = header.get("schedule", (0, 0, None))
    if header.get("cancelled"):
        cancel.cancel()
    return CheckedRequest(
        *model,
        header["id"],
        inputs,
        tuple(header.get("outputs", ())),
        header.get("parameters", {}),
        priority,
        timeout_us,
        sequence_id,
        sequence_start,
        sequence_end,
        header["batch_size"],
        cancel,
        deadline,
        tuple(header.get("callers", ())),
        trace=CarriedTrace(traceparent) if (traceparent := header.get("traceparent")) else None,
        window=_window(header),
    )


def decode_question(header: Header, runs: list[Run]) -> InferRequest:
    """A request that the process asks of another model."""
    sequence_id, sequence_start, sequence_end = header.get("sequence", (0, False, False))
    priority, timeout_us, _ = header.get("schedule", (0, 0, None))
    return InferRequest(
        header["model"],
        header["version"],
        header["id"],
        {run.tensors[0].name: run.tensors[0] for run in runs},
        tuple(header.get("outputs", ())),
        header.get("parameters", {}),
        priority,
        timeout_us,
        sequence_id,
        sequence_start,
        sequence_end,
    )


def decode_context(header: Header, parents: Sequence[CheckedRequest]) -> RequestContext:
    """How it is asked, on behalf of requests that the process computes: who pays for it and where
    it is traced the process cannot know."""
    cancel = CancelToken()
    if header.get("cancelled"):
        cancel.cancel()
    return RequestContext(
        cancel,
        header.get("schedule", (0, 0, None))[2],
        tuple(header.get("callers", ())),
        on_tokens=shared_payer(parents),
        tenant=shared_tenant(parents),
        trace=next((each.trace for each in parents if each.trace is not None), None),
        window=_window(header),
        client=shared_client(parents),
    )


def _window(header: Header) -> Window | None:
    window = header.get("window")
    return Window(window[0], is_soft=window[1]) if window else None


def encode_result(batch: Batch) -> tuple[Header, list[list[Tensor]]]:
    """The reply to an `execute` message."""
    times = [batch.gathered_ns, batch.computed_ns, batch.gathered_bytes]
    header: Header = {"op": "done", "times": times}
    columns = _columns(batch)
    if columns is None:
        header["results"], columns = _results(batch)
    if batch.copies or batch.synchronisations:
        copies = {kind.value: size_bytes for kind, size_bytes in batch.copies.items()}
        header["copied"] = [copies, batch.synchronisations]
    if batch.rescheduled:
        header["rescheduled"] = sorted(batch.rescheduled)
    if batch.num_tokens:
        header["tokens"] = list(batch.num_tokens.items())
    return header, columns


def _columns(batch: Batch) -> list[list[Tensor]] | None:
    """The outputs, each of all requests: where all requests have the same and nothing else, and
    none is of texts. None elsewhere."""
    first = [(tensor.name, tensor.datatype) for tensor in batch.outputs[0]]
    if batch.errors or batch.parameters or not first:
        return None
    for outputs in batch.outputs:
        if [(tensor.name, tensor.datatype) for tensor in outputs] != first:
            return None
    if any(datatype is DataType.BYTES for _, datatype in first):
        return None
    return [list(column) for column in zip(*batch.outputs, strict=True)]


def _results(batch: Batch) -> tuple[list[Header], list[list[Tensor]]]:
    """What became of each request, and its outputs, one after another."""
    results: list[Header] = []
    runs: list[list[Tensor]] = []
    for index, outputs in enumerate(batch.outputs):
        error = batch.errors.get(index)
        packed = _packed(outputs) if error is None else []
        result: Header = {"num_outputs": 0}
        if isinstance(packed, ServingError):
            error = packed
        else:
            result["num_outputs"] = len(packed)
            runs += ([tensor] for tensor in packed)
        if error is not None:
            result |= encode_error(error)
        if parameters := batch.parameters.get(index):
            result["parameters"] = dict(parameters)
        results.append(result)
    return results, runs


def _packed(outputs: list[Tensor]) -> list[Tensor] | ServingError:
    """With texts in wire form, since not every text has one: the fault of one request alone."""
    packed: list[Tensor] = []
    for tensor in outputs:
        if tensor.datatype is not DataType.BYTES or isinstance(tensor.data, PackedBytes):
            packed.append(tensor)
            continue
        try:
            packed.append(Tensor(tensor.name, tensor.datatype, tensor.shape, tensor.packed()))
        except (TypeError, ValueError) as error:
            return BackendFailed(f"output '{tensor.name}' cannot be sent: {error}")
    return packed


def decode_result(message: Message, batch: Batch) -> None:
    """Fills the batch from the reply; raises the error that failed all of it."""
    if "error" in message.header:
        raise decode_error(message.header)
    batch.rescheduled.update(message.header.get("rescheduled", ()))
    for index, count in message.header.get("tokens", ()):
        batch.read_tokens(index, count)
    results = message.header.get("results")
    if results is None:
        columns = (run.tensors for run in message.runs)
        for index, tensors in enumerate(zip(*columns, strict=True)):
            batch.respond(index, list(tensors))
    else:
        _decode_results(results, message.runs, batch)
    gathered_ns, computed_ns, gathered_bytes = message.header["times"]
    # Both processes read the same monotonic clock.
    batch.gathered_ns = gathered_ns or batch.gathered_ns
    batch.computed_ns = computed_ns
    batch.gathered_bytes += gathered_bytes
    copies, num_waits = message.header.get("copied", ({}, 0))
    batch.synchronisations += num_waits
    for kind, size_bytes in copies.items():
        batch.copied(CopyKind(kind), size_bytes)


def _decode_results(results: Sequence[Header], runs: Sequence[Run], batch: Batch) -> None:
    outputs = iter(runs)
    for index, result in enumerate(results):
        if "error" in result:
            batch.fail(index, decode_error(result))
        tensors = [next(outputs).tensors[0] for _ in range(result["num_outputs"])]
        batch.respond(index, tensors, result.get("parameters"))

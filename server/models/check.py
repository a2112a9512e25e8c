"""A request against the signature of the model it is for, and on to it. Texts are Triton's."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from trivet.backends.api import (
    CheckedRequest,
    InferRequest,
    InvalidRequest,
    RequestContext,
    Shape,
    Signature,
    Sink,
    Tensor,
    TensorSpec,
)
from trivet.server.models.model import Model
from trivet.server.scheduling.ticket import labelled

BATCH_DIMENSION_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)


def submit(model: Model, request: InferRequest, context: RequestContext, sink: Sink) -> None:
    """Makes a request one that the model can be given, and hands it over. Every outcome goes to the
    sink, exactly one end. Never raises."""
    try:
        batch_size = check_request(model.signature, model.name, request)
    except InvalidRequest as error:
        sink.fail(InvalidRequest(labelled(request, error.message)))
        return
    inputs, trace = request.inputs, context.trace
    if model.reshape is not None:
        inputs = model.reshape.inputs(inputs)
    if trace is not None:
        trace = trace.begin(request, model.version, inputs)
        sink = trace.ending(sink)
    checked = CheckedRequest(
        model.key,
        model.version,
        request.id,
        inputs,
        request.output_names,
        request.parameters,
        request.priority,
        request.timeout_us,
        request.sequence_id,
        request.sequence_start,
        request.sequence_end,
        batch_size,
        context.cancel,
        context.deadline,
        context.callers,
        context.residence,
        context.on_tokens,
        context.tenant,
        trace,
        context.window,
        context.client,
    )
    model.executor.submit(checked, sink)


def check_request(signature: Signature, name: str, request: InferRequest) -> int:
    """The request's batch size, 1 where the model does not batch. Raises InvalidRequest saying what
    does not fit model `name`."""
    inputs = request.inputs
    if inputs.keys() != signature.inputs.keys():
        _check_input_names(signature, name, inputs)
    batch_size = 0
    for tensor in inputs.values():
        spec = signature.inputs[tensor.name]
        if tensor.datatype is not spec.datatype:
            raise InvalidRequest(
                f"inference input '{spec.name}' data-type is '{tensor.datatype.value}', but model "
                f"'{name}' expects '{spec.datatype.value}'"
            )
        if not signature.batching:
            _check_shape(signature, name, spec, tensor.shape)
            continue
        shape = tensor.shape[1:]
        if not tensor.shape or (shape != spec.dims and not fits(shape, spec.dims)):
            _check_shape(signature, name, spec, tensor.shape)
        if batch_size not in (0, tensor.shape[0]):
            raise InvalidRequest(
                f"input '{spec.name}' batch size does not match other inputs for '{name}': "
                f"expected {batch_size}, got {tensor.shape[0]}"
            )
        batch_size = tensor.shape[0]
        if not 1 <= batch_size <= signature.max_batch_size:
            _raise_batch_size(signature, name, spec, batch_size)
    if request.output_names:
        _check_output_names(signature, name, request.output_names)
    return batch_size or 1


@lru_cache(maxsize=1024)
def fits(shape: Shape, dims: Shape) -> bool:
    """Whether a shape matches dims, in which -1 stands for any size."""
    return shape == dims or (
        len(shape) == len(dims)
        and all(dim in (-1, size) for size, dim in zip(shape, dims, strict=True))
    )


def shape_text(shape: Iterable[int]) -> str:
    """A shape as the protocol's error texts print it."""
    return "[" + ",".join(map(str, shape)) + "]"


def _check_shape(signature: Signature, name: str, spec: TensorSpec, shape: Shape) -> None:
    wanted = signature.full_dims(spec)
    if fits(shape, wanted):
        return
    note = f". {BATCH_DIMENSION_NOTE}" if signature.batching else ""
    raise InvalidRequest(
        f"unexpected shape for input '{spec.name}' for model '{name}'. "
        f"Expected {shape_text(wanted)}, got {shape_text(shape)}{note}"
    )


def _raise_batch_size(signature: Signature, name: str, spec: TensorSpec, batch_size: int) -> None:
    if batch_size < 1:
        raise InvalidRequest(
            f"input '{spec.name}' has batch size {batch_size}; the batch dimension of a request to "
            f"'{name}' must be between 1 and {signature.max_batch_size}"
        )
    raise InvalidRequest(
        f"inference request batch-size must be <= {signature.max_batch_size} for '{name}', "
        f"got {batch_size} (max_batch_size of its config.pbtxt; else --default-max-batch-size)"
    )


def _check_input_names(signature: Signature, name: str, inputs: Mapping[str, Tensor]) -> None:
    num_required, num_known = len(signature.required_inputs), len(signature.inputs)
    if not num_required <= len(inputs) <= num_known:
        missing = [n for n in signature.inputs if n in signature.required_inputs - inputs.keys()]
        expected = (
            f"expected {num_known} inputs but got {len(inputs)} inputs"
            if num_required == num_known
            else f"expected number of inputs between {num_required} and {num_known} "
            f"but got {len(inputs)} inputs"
        )
        raise InvalidRequest(
            f"{expected} for model '{name}'. Got input(s) {_names(inputs)}, but missing required "
            f"input(s) {_names(missing)}. Please provide all required input(s)."
        )
    for given in inputs:
        if given not in signature.inputs:
            raise InvalidRequest(
                f"unexpected inference input '{given}' for model '{name}'; "
                f"its inputs are {_names(signature.inputs)}"
            )
    missing = sorted(signature.required_inputs - inputs.keys())
    if missing:
        raise InvalidRequest(
            f"missing required input(s) {_names(missing)} for model '{name}'. "
            f"Got input(s) {_names(inputs)}. Please provide all required input(s)."
        )


def _check_output_names(signature: Signature, name: str, wanted: tuple[str, ...]) -> None:
    # A model whose config declares no outputs (tests, scripts) may answer with any.
    for output in wanted if signature.outputs else ():
        if output not in signature.outputs:
            raise InvalidRequest(
                f"unexpected inference output '{output}' for model '{name}'; "
                f"its outputs are {_names(signature.outputs)}"
            )


def _names(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"

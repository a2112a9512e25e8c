"""ModelInfer messages to requests and responses to messages, without touching tensor bytes."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from trivet.backends.api import (
    DataType,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ParameterValue,
    Tensor,
    TooLarge,
)
from trivet.backends.api.datatype import BY_NAME
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.wire import RAW_OUTPUT_TAG, Buffer, Split, field_head, split_infer_request
from trivet.server.protocol.inputs import InputPlan, byte_size, check_byte_size
from trivet.server.protocol.outputs import MAX_RESPONSE_BYTES, require_sendable
from trivet.server.protocol.parameters import Options, parse_parameters, set_parameter
from trivet.server.protocol.shapes import check_shape
from trivet.server.protocol.versions import parse_version
from trivet.server.protocol.wishes import OutputWish, RegionSlice, parse_wish
from trivet.server.shared_memory.system import SharedMemory

MAX_CACHED_HEADER_BYTES = 4096
MAX_HEADER_BYTES = 8 * 1024 * 1024
"""All of a request but raw_input_contents: a small integer takes a byte there and 24 in memory."""
MAX_TEMPLATES = 1024
MAX_ID_BYTES = 4096
MAX_PARAMETERS = 1024
"""Of one request, input or output."""
UNSIGNED_PARAMETERS = ("priority", "timeout", "sequence_id")
CONTENTS_FIELD = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class Template:
    """All of a request but its id and its raw tensor bytes. Clients repeat it call after call."""

    model_name: str
    model_version: int | str | None
    inputs: tuple[InputPlan, ...]
    num_raw: int
    wishes: Mapping[str, OutputWish]
    output_names: tuple[str, ...]
    options: Options


@dataclass(slots=True)
class Decoded:
    """A request and what the client wants done with its answer."""

    request: InferRequest
    wishes: Mapping[str, OutputWish]
    wants_empty_final: bool


class Decoder:
    """Decodes ModelInferRequest messages; keeps the most recent templates. Owned by the loop."""

    def __init__(self, shared_memory: SharedMemory) -> None:
        self._shared_memory = shared_memory
        self._templates: OrderedDict[bytes, Template] = OrderedDict()

    def decode(self, message: Buffer) -> Decoded:
        """Tensors are views on `message`. Raises InvalidRequest, NotFound or Unsupported."""
        try:
            split = split_infer_request(message)
            request_id = _id(split.id) if split.id else ""
        except ValueError as error:
            raise InvalidRequest(
                f"failed to parse the ModelInferRequest message: {error}"
            ) from None
        template = self._templates.get(split.header)
        if template is None:
            template = self._parse(split)
        inputs = self._inputs(template, split.raw)
        options = template.options
        request = InferRequest(
            template.model_name,
            template.model_version,
            request_id,
            inputs,
            template.output_names,
            options.parameters,
            options.priority,
            options.timeout_us,
            options.sequence_id if split.sequence_id is None else _sequence_id(split.sequence_id),
            options.sequence_start,
            options.sequence_end,
        )
        return Decoded(request, template.wishes, options.wants_empty_final)

    def _parse(self, split: Split) -> Template:
        if len(split.header) > MAX_HEADER_BYTES:
            raise TooLarge(
                f"the request has {len(split.header)} bytes besides raw_input_contents, the limit "
                f"is {MAX_HEADER_BYTES}; send the data of large tensors as raw_input_contents"
            )
        try:
            message = pb.ModelInferRequest.FromString(split.header)
        except DecodeError:
            raise InvalidRequest("failed to parse the ModelInferRequest message") from None
        template = parse_template(message, has_raw=bool(split.raw))
        has_contents = any(plan.tensor is not None for plan in template.inputs)
        if len(split.header) <= MAX_CACHED_HEADER_BYTES and not has_contents:
            self._templates[split.header] = template
            if len(self._templates) > MAX_TEMPLATES:
                self._templates.popitem(last=False)
        return template

    def _inputs(self, template: Template, raw: list[memoryview]) -> dict[str, Tensor]:
        if len(raw) != template.num_raw:
            raise InvalidRequest(
                f"expected {template.num_raw} entries in raw_input_contents, one for each input "
                f"that is not in shared memory, got {len(raw)} for model '{template.model_name}'"
            )
        inputs: dict[str, Tensor] = {}
        position = 0
        for plan in template.inputs:
            if plan.tensor is not None:
                inputs[plan.name] = plan.tensor
                continue
            if plan.region is not None:
                region = plan.region
                on_gpu = self._shared_memory.tensor(region, plan.name, plan.datatype, plan.shape)
                if on_gpu is not None:
                    inputs[plan.name] = on_gpu
                    continue
                data = self._shared_memory.read(region.name, region.offset, region.byte_size)
            else:
                data = raw[position]
                position += 1
            inputs[plan.name] = _tensor(template.model_name, plan, data)
        return inputs


def _id(encoded: bytes) -> str:
    if len(encoded) > MAX_ID_BYTES:
        raise ValueError(f"an id of {len(encoded)} bytes; at most {MAX_ID_BYTES} are allowed")
    return encoded.decode()


def _tensor(model_name: str, plan: InputPlan, data: memoryview) -> Tensor:
    check_byte_size(plan.name, plan.size_bytes, len(data), model_name)
    try:
        return Tensor.from_raw(plan.name, plan.datatype, plan.shape, data)
    except ValueError as error:
        raise InvalidRequest(
            f"unexpected data for inference input '{plan.name}' for model '{model_name}': {error}"
        ) from None


def _sequence_id(entry: bytes) -> int | str:
    """The checked value of the parameter `sequence_id`."""
    try:
        parameter = pb.ModelInferRequest.ParametersEntry.FromString(entry)
    except DecodeError:
        raise InvalidRequest("failed to parse the ModelInferRequest message") from None
    values = parameter_values({parameter.key: parameter.value})
    return parse_parameters(values, allow_empty_final=True).sequence_id


def parse_template(message: pb.ModelInferRequest, *, has_raw: bool) -> Template:
    """The template of a request message without its raw contents. Raises InvalidRequest."""
    inputs: dict[str, InputPlan] = {}
    for tensor in message.inputs:
        if tensor.name in inputs:
            raise InvalidRequest(f"input '{tensor.name}' already exists in request")
        inputs[tensor.name] = _input_plan(message.model_name, tensor, has_raw=has_raw)
    wishes: dict[str, OutputWish] = {}
    for output in message.outputs:
        if output.name in wishes:
            raise InvalidRequest(f"output '{output.name}' already exists in request")
        wishes[output.name] = parse_wish(output.name, parameter_values(output.parameters))
    return Template(
        message.model_name,
        parse_version(message.model_version),
        tuple(inputs.values()),
        sum(plan.region is None and plan.tensor is None for plan in inputs.values()),
        {name: wish for name, wish in wishes.items() if not wish.is_plain},
        tuple(wishes),
        parse_parameters(parameter_values(message.parameters), allow_empty_final=True),
    )


def _input_plan(
    model_name: str, tensor: pb.ModelInferRequest.InferInputTensor, *, has_raw: bool
) -> InputPlan:
    datatype = BY_NAME.get(tensor.datatype)
    if datatype is None:
        raise InvalidRequest(
            f"unknown datatype '{tensor.datatype}' of input '{tensor.name}'; known are "
            f"{', '.join(BY_NAME)}"
        )
    shape = tuple(tensor.shape)
    check_shape(tensor.name, datatype, shape)
    size_bytes = byte_size(datatype, shape)
    region = RegionSlice.of(tensor.name, parameter_values(tensor.parameters))
    plan = InputPlan(tensor.name, datatype, shape, size_bytes, region)
    if not tensor.HasField("contents"):
        if region is None and not has_raw and size_bytes != 0:
            raise InvalidRequest(
                f"unable to find data for input tensor '{tensor.name}' for model '{model_name}' in "
                "request: give raw_input_contents, contents or a shared memory region"
            )
        return plan
    if region is not None:
        raise InvalidRequest(
            f"unexpected 'content' provided when using shared memory for input tensor "
            f"'{tensor.name}' for model '{model_name}'"
        )
    if has_raw:
        raise InvalidRequest(
            f"contents field must not be specified when using raw_input_contents for "
            f"'{tensor.name}' for model '{model_name}'"
        )
    values = _contents(model_name, plan, tensor.contents)
    return InputPlan(tensor.name, datatype, shape, size_bytes, tensor=values)


def _contents(model_name: str, plan: InputPlan, contents: pb.InferTensorContents) -> Tensor:
    name = CONTENTS_FIELD.get(plan.datatype)
    if name is None:
        raise InvalidRequest(
            f"input '{plan.name}' of datatype {plan.datatype.value} has no contents field; use "
            "raw_input_contents"
        )
    given = [field.name for field, _ in contents.ListFields()]
    if given not in ([], [name]):
        raise InvalidRequest(
            f"input '{plan.name}' of datatype {plan.datatype.value} for model '{model_name}' must "
            f"give {name}, got {', '.join(given)}"
        )
    values = getattr(contents, name)
    if len(values) != prod(plan.shape):
        raise InvalidRequest(
            f"unexpected number of elements in contents of input '{plan.name}' for model "
            f"'{model_name}': expected {prod(plan.shape)}, got {len(values)}"
        )
    try:
        array = _array(values, plan.datatype).reshape(plan.shape)
    except OverflowError:
        raise InvalidRequest(
            f"a value in contents of input '{plan.name}' is out of range for {plan.datatype.value}"
        ) from None
    return Tensor(plan.name, plan.datatype, plan.shape, array)


def _array(values: Sequence[Any], datatype: DataType) -> np.ndarray:
    if datatype is DataType.BYTES:
        return np.array(values, dtype=object)
    # numpy's array() would make a list of objects first.
    return np.fromiter(values, dtype=datatype.dtype, count=len(values))


def parameter_values(
    parameters: Mapping[str, pb.InferParameter],
) -> dict[str, ParameterValue]:
    """The values of a parameter map. Raises InvalidRequest for a parameter without a value."""
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidRequest(f"{len(parameters)} parameters; at most {MAX_PARAMETERS} are allowed")
    values: dict[str, ParameterValue] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"parameter '{name}' has no value")
        if choice == "uint64_param" and name not in UNSIGNED_PARAMETERS:
            raise InvalidRequest(f"parameter '{name}' is a uint64; give it as int64_param")
        values[name] = getattr(parameter, choice)
    return values


class Encoder:
    """Encodes ModelInferResponse messages as pieces that need not be joined.

    The part before the tensor bytes depends only on model, shapes and parameters, so it is kept
    for the most recent ones. Owned by the loop.
    """

    def __init__(self, max_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._heads: OrderedDict[object, bytes] = OrderedDict()

    def encode(
        self, response: InferResponse, in_region: Collection[str], *, final: bool | None
    ) -> list[Buffer]:
        """The message. Outputs named in `in_region` are in shared memory already and sent empty;
        `final` (not None) becomes the parameter `triton_final_response`.
        Raises ResponseTooLarge."""
        require_sendable(response, self._max_bytes)
        pieces: list[Buffer] = [self._head(response, final=final)]
        if response.id:
            encoded_id = response.id.encode()
            pieces.append(field_head(b"\x1a", len(encoded_id)) + encoded_id)
        for tensor in response.outputs:
            raw: Buffer = b"" if tensor.name in in_region else tensor.small_raw(SMALL_BYTES)
            size = len(raw)
            if size <= SMALL_BYTES:
                pieces.append(field_head(RAW_OUTPUT_TAG, size) + raw)
            else:
                pieces += (field_head(RAW_OUTPUT_TAG, size), raw)
        return pieces

    def _head(self, response: InferResponse, *, final: bool | None) -> bytes:
        shapes = tuple((t.name, t.datatype, t.shape) for t in response.outputs)
        key = (response.model_name, response.model_version, final, shapes)
        head = None if response.parameters else self._heads.get(key)
        if head is None:
            head = _serialised_head(response, final=final)
            if not response.parameters:
                self._heads[key] = head
                if len(self._heads) > MAX_TEMPLATES:
                    self._heads.popitem(last=False)
        return head


SMALL_BYTES = 16384
"""Tensors up to this size are joined with their field head: one short copy is cheaper than a piece
more on the way to the socket."""


def _serialised_head(response: InferResponse, *, final: bool | None) -> bytes:
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=str(response.model_version)
    )
    for name, value in response.parameters.items():
        set_parameter(message.parameters[name], value)
    if final is not None:
        message.parameters["triton_final_response"].bool_param = final
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
    return message.SerializeToString()

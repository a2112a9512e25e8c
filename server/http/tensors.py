"""The infer codec: body to request and response to body, numbers and strings without a copy."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from math import prod

import numpy as np
import orjson

from trivet.backends.api import (
    DataType,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PackedBytes,
    Shape,
    Tensor,
)
from trivet.backends.api.value import record
from trivet.server.http.json_document import parse_object
from trivet.server.http.json_numbers import MAX_BYTES, Numbered, plan_numbered
from trivet.server.http.json_values import output_text
from trivet.server.http.limits import JsonLimits
from trivet.server.http.plan import RequestPlan, Wishes, plan_request
from trivet.server.protocol.inputs import InputPlan
from trivet.server.protocol.wishes import RegionSlice

Body = bytes | memoryview
_BYTES = DataType.BYTES
ReadShared = Callable[[str, int, int], memoryview]
"""Region, offset, byte size: `SharedMemory.read`."""
ReadDevice = Callable[[RegionSlice, str, DataType, Shape], Tensor | None]
"""`SharedMemory.tensor`: of a region on a GPU."""

_CACHED_PLANS = 1024
MOST_KEPT_BYTES = 4096
SMALL_BYTES = 4096
"""Of an output that is copied for less than a view on it would cost."""
# A leading id is set apart: it differs with each request where all else is the same.
_ID = b'"id"'
_BEGIN_OF_ID = b'{"id"'
_LEADING_ID = re.compile(rb'\{"id": ?"([^"\\\x00-\x1f\x7f-\xff]{1,128})", ?')


@record
class Decoded:
    """An infer request and how its outputs are wanted."""

    request: InferRequest
    wishes: Wishes
    plan: RequestPlan | None = None
    """Where another request with the same bytes before its tensors has it, too."""


@record
class Encoded:
    """An infer answer: a JSON part and the binary outputs behind it."""

    text: bytes
    buffers: list[Body]


class InferDecoder:
    """Makes requests of bodies. Keeps the plans of recent headers: a client that repeats its
    request with other values repeats its header."""

    def __init__(
        self, read_shared: ReadShared, limits: JsonLimits, read_device: ReadDevice | None = None
    ) -> None:
        self._read_shared = read_shared
        self._read_device = read_device
        self._json_limits = limits
        self._remembered = lru_cache(maxsize=_CACHED_PLANS)(self._plan)
        self._numbered = lru_cache(maxsize=_CACHED_PLANS)(self._plan_numbered)

    def decode(
        self, body: Body, header_length: int | None, model_name: str, version: int | str | None
    ) -> Decoded:
        """The request of a body whose first `header_length` bytes (None: all) are its JSON part.

        Inputs are views on the rest of `body`, or on shared memory. Raises InvalidRequest.
        """
        binary: Body = b""
        if header_length is None:
            text = bytes(body)
            decoded = self._decode_numbers(text, model_name, version)
            if decoded is not None:
                return decoded
            plan, request_id = self._plan(text, model_name), ""
        else:
            plan, request_id = self._recall(bytes(body[:header_length]), model_name)
            # A small body is bytes, of which this is an aligned copy; a large one stays in place.
            binary = body[header_length:]
        inputs = self.inputs(plan, binary, model_name)
        request = request_of(plan, request_id, inputs, model_name, version)
        is_same = header_length is not None and not request_id and header_length <= MOST_KEPT_BYTES
        return Decoded(request, plan.wishes, plan if is_same else None)

    def _recall(self, header: bytes, model_name: str) -> tuple[RequestPlan, str]:
        """The plan of a header, and the id that it had in front."""
        if len(header) > MOST_KEPT_BYTES:
            return self._plan(header, model_name), ""
        leading = _LEADING_ID.match(header) if header.startswith(_BEGIN_OF_ID) else None
        if leading is None:
            return self._remembered(header, model_name), ""
        rest = b"{" + header[leading.end() :]
        if _ID in rest:  # perhaps twice the same key
            return self._remembered(header, model_name), ""
        return self._remembered(rest, model_name), leading[1].decode()

    def _decode_numbers(
        self, text: bytes, model_name: str, version: int | str | None
    ) -> Decoded | None:
        """The request of a text of which all but the numbers came before, or might come again;
        None where all of it has to be parsed."""
        if len(text) > min(MAX_BYTES, self._json_limits.max_values):
            return None
        leading = _LEADING_ID.match(text)
        rest = text if leading is None else b"{" + text[leading.end() :]
        if leading is not None and _ID in rest:  # perhaps twice the same key
            return None
        numbered = Numbered.of(rest)
        if numbered is None or len(numbered.text) > MOST_KEPT_BYTES:
            return None
        plan = self._numbered(numbered.text, len(numbered.numbers), model_name)
        if plan is None:
            return None
        inputs = numbered.tensors(plan)
        if inputs is None:
            return None
        request_id = "" if leading is None else leading[1].decode()
        request = request_of(plan, request_id, inputs, model_name, version)
        return Decoded(request, plan.wishes)

    def _plan_numbered(self, text: bytes, count: int, model_name: str) -> RequestPlan | None:
        return plan_numbered(text, count, model_name, self._json_limits)

    def _plan(self, header: bytes, model_name: str) -> RequestPlan:
        return plan_request(parse_object(header, self._json_limits), model_name)

    def inputs(self, plan: RequestPlan, binary: Body, model_name: str) -> dict[str, Tensor]:
        """Those of a plan, as views on the bytes behind it, or on shared memory. Raises
        InvalidRequest."""
        inputs = {}
        position = 0
        for wanted in plan.inputs:
            if wanted.tensor is not None:
                inputs[wanted.name] = wanted.tensor
            elif wanted.region is not None:
                inputs[wanted.name] = self._shared_input(wanted, wanted.region, model_name)
            else:
                assert wanted.size_bytes is not None, "binary_data_size is required"
                stop = position + wanted.size_bytes
                raw = binary if position == 0 and stop == len(binary) else binary[position:stop]
                position = stop
                if wanted.datatype is _BYTES or len(raw) < wanted.size_bytes:
                    inputs[wanted.name] = _from_raw(wanted, raw, model_name)
                else:
                    values = np.ndarray(wanted.shape, wanted.datatype.dtype, raw)
                    inputs[wanted.name] = Tensor(wanted.name, wanted.datatype, wanted.shape, values)
        if position != len(binary):
            raise InvalidRequest(
                f"unexpected additional input data for model '{model_name}': the inputs take "
                f"{position} bytes behind the JSON part, the body has {len(binary)}"
            )
        return inputs

    def _shared_input(self, wanted: InputPlan, region: RegionSlice, model_name: str) -> Tensor:
        if self._read_device is not None:
            tensor = self._read_device(region, wanted.name, wanted.datatype, wanted.shape)
            if tensor is not None:
                return tensor
        raw = self._read_shared(region.name, region.offset, region.byte_size)
        return tensor_from_raw(wanted.name, wanted.datatype, wanted.shape, raw, model_name)


def request_of(
    plan: RequestPlan,
    request_id: str,
    inputs: dict[str, Tensor],
    model_name: str,
    version: int | str | None,
) -> InferRequest:
    """What is asked by a plan, with these inputs. Without an id of its own it has the plan's."""
    options = plan.options
    return InferRequest(
        model_name,
        version,
        request_id or plan.id,
        inputs,
        plan.output_names,
        options.parameters,
        options.priority,
        options.timeout_us,
        options.sequence_id,
        options.sequence_start,
        options.sequence_end,
    )


def encode_infer(response: InferResponse, wishes: Wishes) -> Encoded:
    """The answer's JSON part and buffers, not joined. Raises InvalidRequest where JSON is wanted of
    values that it cannot hold."""
    if response.outputs and not response.parameters:
        if wishes.are_binary:
            return _encode_binary(response)
        if wishes.are_json:
            return _encode_json(response)
    buffers: list[Body] = []
    document: dict[str, object] = {
        "model_name": response.model_name,
        "model_version": str(response.model_version),
        "outputs": [_entry(tensor, wishes, buffers) for tensor in response.outputs],
    }
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    return Encoded(orjson.dumps(document), buffers)


def _encode_binary(response: InferResponse) -> Encoded:
    """Models give few names and shapes, each many times: the text about them is kept."""
    buffers = [tensor.small_raw(SMALL_BYTES) for tensor in response.outputs]
    text = binary_text(response, map(len, buffers))
    return Encoded(_with_id(text, response.id), buffers)


def binary_text(response: InferResponse, sizes: Iterable[int]) -> bytes:
    """The JSON part of an answer without an id, with so many bytes of each output behind it."""
    described = tuple(
        (tensor.name, tensor.datatype, tensor.shape, size_bytes)
        for tensor, size_bytes in zip(response.outputs, sizes, strict=True)
    )
    return _binary_text(response.model_name, response.model_version, described)


def _encode_json(response: InferResponse) -> Encoded:
    """The same where the values are in the text: all but these is kept."""
    outputs = response.outputs
    described = tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in outputs)
    first, *others, last = _json_texts(response.model_name, response.model_version, described)
    pieces = [first, output_text(outputs[0])]
    for between, tensor in zip(others, outputs[1:], strict=True):
        pieces += (between, output_text(tensor))
    pieces.append(last)
    return Encoded(_with_id(b"".join(pieces), response.id), [])


def _with_id(document: bytes, request_id: str) -> bytes:
    """The same with the request's id, if it has one."""
    return b'%b,"id":%b}' % (document[:-1], orjson.dumps(request_id)) if request_id else document


@lru_cache(maxsize=_CACHED_PLANS)
def _json_texts(
    model_name: str, version: int, described: tuple[tuple[str, DataType, Shape], ...]
) -> list[bytes]:
    """What stands before the values of the first output, between them, and behind the last."""
    document = {"model_name": model_name, "model_version": str(version), "outputs": []}
    texts, before = [], orjson.dumps(document).removesuffix(b"]}")
    for name, datatype, shape in described:
        entry = orjson.dumps({"name": name, "datatype": datatype.value, "shape": shape})
        texts.append(b'%b%b,"data":' % (before, entry[:-1]))
        before = b"},"
    return [*texts, b"}]}"]


@lru_cache(maxsize=_CACHED_PLANS)
def _binary_text(
    model_name: str, version: int, described: tuple[tuple[str, DataType, Shape, int], ...]
) -> bytes:
    outputs = [
        {
            "name": name,
            "datatype": datatype.value,
            "shape": shape,
            "parameters": {"binary_data_size": size_bytes},
        }
        for name, datatype, shape, size_bytes in described
    ]
    document = {"model_name": model_name, "model_version": str(version), "outputs": outputs}
    return orjson.dumps(document)


def tensor_from_raw(
    name: str, datatype: DataType, shape: Shape, raw: Body, model_name: str
) -> Tensor:
    """A tensor on wire bytes whose size has been checked. Raises InvalidRequest for BYTES that do
    not hold the elements that the shape asks for."""
    if datatype is not DataType.BYTES:
        return Tensor.from_raw(name, datatype, shape, raw)
    where = f"inference input '{name}' for model '{model_name}'"
    expected = prod(shape)
    if expected * 4 > len(raw):
        # Each element has at least its length: no need to look for more than there can be.
        raise InvalidRequest(
            f"expected {expected} string elements for {where}, got at most {len(raw) // 4}"
        )
    try:
        packed = PackedBytes.parse(memoryview(raw), expected)
    except ValueError as error:
        raise InvalidRequest(f"{error} of {where}") from None
    if len(packed) > expected:
        raise InvalidRequest(
            f"unexpected number of string elements {len(packed)} for {where}, expecting {expected}"
        )
    if len(packed) < expected:
        raise InvalidRequest(f"expected {expected} string elements for {where}, got {len(packed)}")
    return Tensor(name, datatype, shape, packed)


def _from_raw(wanted: InputPlan, raw: Body, model_name: str) -> Tensor:
    assert wanted.size_bytes is not None
    if len(raw) < wanted.size_bytes:
        raise InvalidRequest(
            f"unexpected size for input '{wanted.name}', expecting "
            f"{wanted.size_bytes - len(raw)} additional bytes for model '{model_name}'"
        )
    return tensor_from_raw(wanted.name, wanted.datatype, wanted.shape, raw, model_name)


def _entry(tensor: Tensor, wishes: Wishes, buffers: list[Body]) -> dict[str, object]:
    """What the JSON part says of an output. Triton's C++ client takes any `parameters` to hold
    `binary_data_size`, so there are none without it: whoever named a region knows it."""
    entry: dict[str, object] = {
        "name": tensor.name,
        "datatype": tensor.datatype.value,
        "shape": tensor.shape,
    }
    wish = wishes.named.get(tensor.name)
    if wish.binary if wish is not None else wishes.others_binary:
        raw = tensor.raw()
        buffers.append(raw)
        entry["parameters"] = {"binary_data_size": len(raw)}
    elif wish is None or wish.region is None:
        entry["data"] = orjson.Fragment(output_text(tensor))
    return entry

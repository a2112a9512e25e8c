"""What the JSON part of an infer request says, checked once; binary tensors are only measured.

The same text always gives the same plan, so plans may be kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from trivet.backends.api import DataType, InvalidRequest, ServingError, Shape
from trivet.backends.api.datatype import BY_NAME
from trivet.server.http.json_document import JsonObject, type_name
from trivet.server.http.json_fields import (
    flag,
    integer,
    object_at,
    objects_at,
    request_id,
    required,
    scalars,
    shown,
    text,
)
from trivet.server.http.json_values import to_tensor
from trivet.server.protocol.inputs import InputPlan, byte_size, check_byte_size
from trivet.server.protocol.parameters import NO_OPTIONS, Options, parse_parameters
from trivet.server.protocol.shapes import check_shape
from trivet.server.protocol.wishes import OutputWish, RegionSlice, parse_wish

_INPUT_FIELDS = ("data", "binary_data_size", "shared_memory_region")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a client wants the outputs: those that it names, and all others."""

    named: Mapping[str, OutputWish]
    others_binary: bool
    special: Mapping[str, OutputWish]
    """Those of `named` that want more than the tensor itself: classes, shared memory."""
    are_binary: bool = False
    """Whether every output that is answered is wanted as bytes."""
    are_json: bool = False
    """Whether every one is wanted as JSON."""


ALL_BINARY = Wishes({}, others_binary=True, special={}, are_binary=True)
ALL_JSON = Wishes({}, others_binary=False, special={}, are_json=True)


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """The JSON part of an infer request."""

    id: str
    inputs: tuple[InputPlan, ...]
    output_names: tuple[str, ...]
    wishes: Wishes
    options: Options


def plan_request(document: JsonObject, model_name: str) -> RequestPlan:
    """Checks a request's JSON part as far as it can be without the model. Raises InvalidRequest."""
    others_binary, options = False, NO_OPTIONS
    if "parameters" in document:
        parameters = object_at(document, "parameters", "the request")
        others_binary = flag(parameters.pop("binary_data_output", False), "'binary_data_output'")
        options = parse_parameters(scalars(parameters), allow_empty_final=False)
    wishes = ALL_BINARY if others_binary else ALL_JSON
    if "outputs" in document:
        wishes = _plan_outputs(document, others_binary=others_binary)
    return RequestPlan(
        request_id(document) if "id" in document else "",
        _plan_inputs(document, model_name),
        tuple(wishes.named),
        wishes,
        options,
    )


def _plan_inputs(document: JsonObject, model_name: str) -> tuple[InputPlan, ...]:
    plans: dict[str, InputPlan] = {}
    for index, tensor in enumerate(objects_at(document, "inputs")):
        name = tensor.get("name")
        if type(name) is not str or not name:
            where = f"inputs[{index}]"
            name = text(required(tensor, "name", where), f"'name' of {where}")
        if name in plans:
            raise InvalidRequest(f"input '{name}' already exists in request")
        plans[name] = _plan_input(name, tensor, model_name)
    return tuple(plans.values())


def _plan_input(name: str, tensor: JsonObject, model_name: str) -> InputPlan:
    datatype = _datatype(tensor, name)
    shape = _shape(tensor, name, datatype)
    if "data" in tensor and "parameters" not in tensor:
        values = to_tensor(name, datatype, shape, tensor["data"])
        return InputPlan(name, datatype, shape, None, tensor=values)
    where = f"input '{name}'"
    parameters = object_at(tensor, "parameters", where)
    source = _source(tensor, parameters, where)
    if source == "data":
        values = to_tensor(name, datatype, shape, tensor["data"])
        return InputPlan(name, datatype, shape, None, tensor=values)
    expected = byte_size(datatype, shape)
    if source == "binary_data_size":
        size = integer(parameters[source], f"'binary_data_size' of {where}")
        check_byte_size(name, expected, size, model_name)
        return InputPlan(name, datatype, shape, size)
    region = RegionSlice.of(name, scalars(parameters))
    assert region is not None
    check_byte_size(name, expected, region.byte_size, model_name)
    return InputPlan(name, datatype, shape, region.byte_size, region)


def _source(tensor: JsonObject, parameters: JsonObject, where: str) -> str:
    present = [key for key in _INPUT_FIELDS if key in (tensor if key == "data" else parameters)]
    if len(present) == 1:
        return present[0]
    found = f"But it sets {' and '.join(present)}" if present else "But no field was set"
    raise InvalidRequest(
        "Input must set only one of the following fields: 'data', 'binary_data_size' in "
        f"'parameters', 'shared_memory_region' in 'parameters'. {found} ({where})"
    )


def _plan_outputs(document: JsonObject, *, others_binary: bool) -> Wishes:
    named: dict[str, OutputWish] = {}
    for index, tensor in enumerate(objects_at(document, "outputs")):
        where = f"outputs[{index}]"
        name = text(required(tensor, "name", where), f"'name' of {where}")
        if name in named:
            raise InvalidRequest(f"output '{name}' already exists in request")
        named[name] = parse_wish(name, scalars(object_at(tensor, "parameters", where)))
    special = {name: wish for name, wish in named.items() if not wish.is_plain}
    binary = {wish.binary for wish in named.values()} if named else {others_binary}
    if special:
        return Wishes(named, others_binary, special)
    return Wishes(named, others_binary, special, binary == {True}, binary == {False})


def _datatype(tensor: JsonObject, name: str) -> DataType:
    value = tensor.get("datatype")
    datatype = BY_NAME.get(value) if type(value) is str else None
    if datatype is None:
        where = f"input '{name}'"
        value = required(tensor, "datatype", where)
        raise InvalidRequest(
            f"invalid datatype {shown(value)} of {where}; it must be one of {', '.join(BY_NAME)}"
        )
    return datatype


def _shape(tensor: JsonObject, name: str, datatype: DataType) -> Shape:
    value = tensor.get("shape")
    if type(value) is not list:
        value = required(tensor, "shape", f"input '{name}'")
        raise InvalidRequest(f"'shape' of input '{name}' must be an array, not {type_name(value)}")
    for dim in value:
        if type(dim) is not int:
            raise InvalidRequest(
                f"'shape' of input '{name}' must hold integers, not {type_name(dim)}"
            )
    shape = tuple(value)
    if not _is_possible(datatype, shape):
        check_shape(name, datatype, shape)
    return shape


@lru_cache(maxsize=1024)
def _is_possible(datatype: DataType, shape: Shape) -> bool:
    """Whether a tensor may have the shape. Clients send few shapes, each many times."""
    try:
        check_shape("", datatype, shape)
    except ServingError:
        return False
    return True

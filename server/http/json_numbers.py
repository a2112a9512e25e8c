"""JSON requests apart from their numbers. Clients repeat a request with other values: then all of
its text but those is the same, and is parsed and checked once. Pure."""

from dataclasses import replace
from math import prod
from typing import Any

import orjson

from trivet.backends.api import InvalidRequest, Tensor
from trivet.backends.api.value import value
from trivet.server.http.json_document import JsonObject, parse_object
from trivet.server.http.json_values import few_floats, to_tensor
from trivet.server.http.limits import JsonLimits
from trivet.server.http.plan import RequestPlan, plan_request
from trivet.server.protocol.inputs import InputPlan

MAX_BYTES = 16 * 1024
"""Of such a text: in a longer one the numbers are nearly all of the work."""
_KEYS = (b'"data":[', b'"data": [')
_NUMBERS = b"0123456789+-.eE, \t\r\n"
"""What numbers and the commas between them are made of: nothing that has structure."""


@value
class Numbered:
    """A text whose arrays of numbers were taken out, each with its place in its stead."""

    text: bytes
    numbers: tuple[bytes, ...]

    @classmethod
    def of(cls, text: bytes) -> "Numbered | None":
        """None for a text in which an array under "data" is nested, or holds anything else."""
        key = _KEYS[0] if _KEYS[0] in text else _KEYS[1]
        first, *pieces = text.split(key)
        rests, numbers = [first], []
        for place, piece in enumerate(pieces):
            end = piece.find(b"]")
            array = piece[:end]
            if end < 0 or array.translate(None, _NUMBERS):
                return None
            rests.append(b"%d%b" % (place, piece[end:]))
            numbers.append(array)
        # With no other "data", by no other spelling, none of the places can be a client's own.
        if not numbers or b"\\" in text or text.count(b'"data"') != len(numbers):
            return None
        return cls(key.join(rests), tuple(numbers))

    def tensors(self, plan: RequestPlan) -> dict[str, Tensor] | None:
        """The inputs of a plan of this text, with these numbers; None where they are no JSON.
        Raises InvalidRequest where they are not what the input needs."""
        inputs = {}
        for wanted, array in zip(plan.inputs, self.numbers, strict=True):
            try:
                values = orjson.loads(b"[%b]" % array)
            except orjson.JSONDecodeError:
                return None
            inputs[wanted.name] = _tensor(wanted, values)
        return inputs


def _tensor(wanted: InputPlan, values: list[Any]) -> Tensor:
    """Of values that are numbers in one array, as their text had room for nothing else."""
    name, datatype, shape = wanted.name, wanted.datatype, wanted.shape
    array = few_floats(datatype, shape, values)
    return (
        to_tensor(name, datatype, shape, values)
        if array is None
        else Tensor(name, datatype, shape, array)
    )


def plan_numbered(
    text: bytes, count: int, model_name: str, limits: JsonLimits
) -> RequestPlan | None:
    """The plan of a text without its `count` arrays of numbers, and without values. None where they
    are not, in their order, the values of the inputs, and for a mistake: all of it tells which."""
    try:
        document = parse_object(text, limits)
        if not _fill(document, count):
            return None
        plan = plan_request(document, model_name)
    except InvalidRequest:
        return None
    inputs = (InputPlan(each.name, each.datatype, each.shape, None) for each in plan.inputs)
    return replace(plan, inputs=tuple(inputs))


def _fill(document: JsonObject, count: int) -> bool:
    """Gives each input values of its shape; False where it has others than those taken out."""
    inputs = document.get("inputs")
    if type(inputs) is not list or len(inputs) != count:
        return False
    left = MAX_BYTES
    for place, tensor in enumerate(inputs):
        if type(tensor) is not dict or tensor.get("data") != [place]:
            return False
        shape = tensor.get("shape")
        if type(shape) is not list or not all(type(dim) is int and dim >= 0 for dim in shape):
            return False
        left -= prod(shape)
        # More values than that do not stand in such a text.
        if left < 0:
            return False
        tensor["data"] = [0] * prod(shape)
    return True

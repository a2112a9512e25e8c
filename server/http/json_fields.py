"""Fields of parsed JSON objects, each of a type that it must have; errors name the field."""

from collections.abc import Mapping

from trivet.backends.api import InvalidRequest, ParameterValue
from trivet.server.http.json_document import JsonObject, type_name
from trivet.server.http.limits import MAX_INFER_ID_CHARACTERS

_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1
_UNSIGNED_PARAMETERS = frozenset({"sequence_id"})
_MAX_UINT64 = 2**64 - 1


def required(owner: Mapping[str, object], key: str, where: str) -> object:
    """The value under a key that must be there."""
    if key not in owner:
        raise InvalidRequest(f"{where} has no '{key}'")
    return owner[key]


def object_at(owner: Mapping[str, object], key: str, where: str) -> JsonObject:
    """The object under a key; empty when it is absent or null."""
    value = owner.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidRequest(f"'{key}' of {where} must be an object, not {type_name(value)}")
    return value


def objects_at(owner: Mapping[str, object], key: str) -> list[JsonObject]:
    """The objects in the array under a key of the request; none when it is absent or empty."""
    values = owner.get(key)
    if not values and isinstance(values, list | dict | None):
        return []
    if type(values) is not list:
        raise InvalidRequest(f"'{key}' of the request must be an array, not {type_name(values)}")
    for index, value in enumerate(values):
        if type(value) is not dict:
            raise InvalidRequest(f"{key}[{index}] must be an object, not {type_name(value)}")
    return values


def integer(value: object, what: str, maximum: int = _MAX_INT64) -> int:
    """A value that must be an integer of 0 to `maximum`."""
    if type(value) is not int:
        raise InvalidRequest(f"{what} must be an integer, not {type_name(value)}")
    if not 0 <= value <= maximum:
        raise InvalidRequest(f"{what} must be from 0 to {maximum}, got {value}")
    return value


def flag(value: object, what: str) -> bool:
    """A value that must be a boolean."""
    if type(value) is not bool:
        raise InvalidRequest(f"Invalid value for {what}: expected a boolean, got {shown(value)}")
    return value


def text(value: object, what: str) -> str:
    """A value that must be a string with something in it."""
    if type(value) is not str or not value:
        raise InvalidRequest(f"{what} must be a string that is not empty, got {shown(value)}")
    return value


def request_id(document: Mapping[str, object]) -> str:
    """The `id` of a request; "" when it has none."""
    value = document.get("id", "")
    if type(value) is not str:
        raise InvalidRequest(f"'id' of the request must be a string, not {type_name(value)}")
    if len(value) > MAX_INFER_ID_CHARACTERS:
        raise InvalidRequest(
            f"'id' of the request has {len(value)} characters, the limit is "
            f"{MAX_INFER_ID_CHARACTERS}"
        )
    return value


def scalars(parameters: Mapping[str, object]) -> dict[str, ParameterValue]:
    """Parameters, each of which must be a boolean, a number within 64 bits or a string."""
    return {name: _scalar(name, value) for name, value in parameters.items()}


def shown(value: object) -> str:
    """A wrong value as an error text quotes it: short."""
    return f"'{value[:64]}'" if isinstance(value, str) else type_name(value)


def _scalar(name: str, value: object) -> ParameterValue:
    if isinstance(value, int) and not _MIN_INT64 <= value <= _maximum(name):
        raise InvalidRequest(f"parameter '{name[:64]}' must fit into 64 bits, got {value}")
    if isinstance(value, bool | int | float | str):
        return value
    raise InvalidRequest(
        f"parameter '{name[:64]}' must be a boolean, a number or a string, not {type_name(value)}"
    )


def _maximum(name: str) -> int:
    return _MAX_UINT64 if name in _UNSIGNED_PARAMETERS else _MAX_INT64

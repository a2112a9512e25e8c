"""Model configs and other messages as JSON, the way Triton prints them."""

from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from trivet.backends.api.errors import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig


def to_json_dict(message: Message) -> dict[str, Any]:
    """A message as JSON-ready values: field names as in the .proto, enums by name, 64-bit integers
    as numbers (protobuf's own JSON prints them as strings), default values included, unset
    sub-messages left out."""
    return {
        field.name: _field(message, field)
        for field in message.DESCRIPTOR.fields
        if field.message_type is None or _is_repeated(field) or message.HasField(field.name)
        if field.containing_oneof is None or message.HasField(field.name)
    }


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = field.message_type.fields_by_name["value"]
        return {_key(key): _value(value[key], item) for key in sorted(value)}
    if _is_repeated(field):
        return [_value(each, field) for each in value]
    return _value(value, field)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return to_json_dict(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value


def from_json(text: str | bytes) -> ModelConfig:
    """A config from JSON, 64-bit integers as numbers or strings. Raises InvalidConfig."""
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidConfig(
            f"the config is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    if not isinstance(values, dict):
        raise InvalidConfig("the config must be a JSON object")
    try:
        return json_format.ParseDict(values, ModelConfig())
    except json_format.ParseError as error:
        raise InvalidConfig(f"the config does not fit ModelConfig: {error}") from None


def parameter(config: ModelConfig, name: str, default: str = "") -> str:
    """The string value of a config parameter."""
    # A map read by key would insert it.
    return config.parameters[name].string_value if name in config.parameters else default


def seconds(config: ModelConfig, name: str, default: float) -> float:
    """A config parameter that bounds a time. Raises InvalidConfig."""
    text = parameter(config, name)
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise InvalidConfig(
            f"model '{config.name}': parameter {name} is '{text}', but must be a number of seconds"
        )
    return found

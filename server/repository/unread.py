"""What a config says in vain: parameters and fields that neither server nor backend reads. Pure."""

from collections.abc import Iterator

from google.protobuf.message import Message

from trivet.backends.api import About
from trivet.backends.api.about import BACKEND_FIELDS, SERVER_PARAMETERS, is_among
from trivet.protos.model_config_pb2 import ModelConfig


def unread_parameters(config: ModelConfig, about: About) -> list[str]:
    """The config's parameters that nobody reads."""
    return sorted(
        name
        for name in config.parameters
        if not is_among(name, SERVER_PARAMETERS) and not about.takes_parameter(name)
    )


def unread_fields(config: ModelConfig, about: About) -> list[str]:
    """The config's fields for backends that this one does not read."""
    if about.fields is None:
        return []
    return [name for name in BACKEND_FIELDS if name not in about.fields and _is_set(config, name)]


def _is_set(config: ModelConfig, path: str) -> bool:
    name, _, rest = path.partition(".")
    return any(
        not rest or any(_has(each, rest) for each in _messages(value))
        for field, value in config.ListFields()
        if field.name == name
    )


def _messages(value: object) -> Iterator[Message]:
    """The message, or each of a repeated field."""
    if isinstance(value, Message):
        yield value
    else:
        yield from value  # type: ignore[misc] # protobuf's containers have no common type


def _has(message: Message, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())

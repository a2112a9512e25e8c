"""What a config says in vain: parameters and fields that neither server nor backend reads. Pure."""

from collections.abc import Iterator

from google.protobuf.message import Message

from trivet.backends.api import About
from trivet.backends.api.about import BACKEND_FIELDS, SERVER_PARAMETERS, is_among
from trivet.protos.model_config_pb2 import ModelConfig

NOBODYS_PARAMETERS = ("TRITON_BATCH_STRATEGY_PATH",)
"""Triton's for libraries that are not loaded here: in vain for every backend."""
NOBODYS_FIELDS = (
    "input.is_non_linear_format_io",
    "instance_group.secondary_devices",
    "optimization.eager_batching",
    "optimization.gather_kernel_buffer_threshold",
    "optimization.priority",
    "output.is_non_linear_format_io",
)
"""Fields of Triton's config that nothing reads here."""
NAMESPACED_FIELDS = ("ensemble_scheduling.step.model_namespace",)
"""Those that mean something where repositories are namespaces."""


def unread_parameters(config: ModelConfig, about: About) -> list[str]:
    """The config's parameters that nobody reads."""
    return sorted(
        name
        for name in config.parameters
        if name in NOBODYS_PARAMETERS
        or not (is_among(name, SERVER_PARAMETERS) or about.takes_parameter(name))
    )


def unread_fields(config: ModelConfig, about: About, *, is_namespaced: bool = False) -> list[str]:
    """The config's fields that nobody reads, or other backends than this one."""
    namespaced = () if is_namespaced else NAMESPACED_FIELDS
    others = () if about.fields is None else (f for f in BACKEND_FIELDS if f not in about.fields)
    return sorted(name for name in (*NOBODYS_FIELDS, *namespaced, *others) if _is_set(config, name))


def _is_set(message: Message, path: str) -> bool:
    name, _, rest = path.partition(".")
    return any(
        not rest or any(_is_set(each, rest) for each in _messages(value))
        for field, value in message.ListFields()
        if field.name == name
    )


def _messages(value: object) -> Iterator[Message]:
    """The message, or each of a repeated field."""
    if isinstance(value, Message):
        yield value
    else:
        yield from value  # type: ignore[misc] # protobuf's containers have no common type

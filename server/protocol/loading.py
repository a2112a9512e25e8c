"""The parameters of a load, the same over both protocols: a config, and files of the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from trivet.backends.api import InvalidRequest

_FILE = "file:"
Content = TypeVar("Content", bytes, str)


@dataclass(frozen=True, slots=True)
class LoadParameters(Generic[Content]):
    """What a client gives with a load."""

    config_json: str | None
    files: Mapping[str, Content]
    """By path in the model's folder."""


def read_load(
    model: str, parameters: Iterable[tuple[str, object]], content: type[Content]
) -> LoadParameters[Content]:
    """What parameters say: the config is text, files are what the protocol has for bytes. Raises
    InvalidRequest."""
    config_json: str | None = None
    files: dict[str, Content] = {}
    for name, value in parameters:
        if name == "config":
            if not isinstance(value, str | None):
                raise _refused(model, "parameter 'config' must be a string that holds JSON")
            config_json = value
        elif name.startswith(_FILE):
            if not isinstance(value, content):
                raise _refused(model, f"parameter '{name[:64]}' must hold the file's bytes")
            files[name.removeprefix(_FILE)] = value
        else:
            known = "'config' and, with --allow-model-upload, 'file:VERSION/NAME'"
            raise _refused(model, f"unrecognized load parameter '{name[:64]}'; known are {known}")
    return LoadParameters(config_json, files)


def _refused(model: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"failed to load '{model[:255]}': {why}")

"""The parameters of a load, the same over both protocols: a config, and files of the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trivet.backends.api import InvalidRequest

_FILE = "file:"


@dataclass(frozen=True, slots=True)
class LoadParameters:
    """What a client gives with a load."""

    config_json: str | None
    files: Mapping[str, bytes]
    """By path in the model's folder."""


def read_load(model: str, parameters: Iterable[tuple[str, object]]) -> LoadParameters:
    """What parameters say: the config is text, files are bytes. Raises InvalidRequest."""
    config_json: str | None = None
    files: dict[str, bytes] = {}
    for name, value in parameters:
        if name == "config":
            if not isinstance(value, str | None):
                raise _refused(model, "parameter 'config' must be a string that holds JSON")
            config_json = value
        elif name.startswith(_FILE):
            if not isinstance(value, bytes):
                raise _refused(model, f"parameter '{name[:64]}' must hold the file's bytes")
            files[name.removeprefix(_FILE)] = value
        else:
            known = "'config' and, with --allow-model-upload, 'file:VERSION/NAME'"
            raise _refused(model, f"unrecognized load parameter '{name[:64]}'; known are {known}")
    return LoadParameters(config_json, files)


def _refused(model: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"failed to load '{model[:255]}': {why}")

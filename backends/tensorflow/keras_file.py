"""What can be said of a Keras file without Keras: whether it is whole, and whether it has code."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content

_MAX_CONFIG_BYTES = 64 << 20
_EXPORT = (
    'load it where its code is, `model.export("model.savedmodel")`, and put that folder there '
    "instead: it needs no code"
)


def check_keras_file(model_name: str, path: Path) -> None:
    """Raises LoadFailed for a .keras file that is cut off or asks for code. A .h5 file is left to
    Keras."""
    if path.suffix != ".keras":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > _MAX_CONFIG_BYTES:
                raise LoadFailed(
                    f"model '{model_name}': the layers of '{path.name}' are described in "
                    f"{entry.file_size} bytes; {_MAX_CONFIG_BYTES} is the limit"
                )
            layers = json.loads(archive.read(entry))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise LoadFailed(
            f"model '{model_name}': '{path.name}' is no whole .keras file, but "
            f"{describe_content(path)}; a file that was cut off while it was copied looks so. Copy "
            "it again"
        ) from error
    for node in _nodes(layers):
        if node.get("class_name") == "__lambda__":
            raise LoadFailed(f"model '{model_name}': {lambda_layer(path)}")
        if not _is_of_keras(node):
            raise LoadFailed(f"model '{model_name}': {own_layer(path, repr(node['class_name']))}")


def lambda_layer(path: Path) -> str:
    """The sentence that helps where the file has code in it."""
    return (
        f"'{path.name}' has a Lambda layer, Python code inside the file, which is never run here; "
        f"{_EXPORT}"
    )


def own_layer(path: Path, what: str) -> str:
    """The same where the code is somewhere else."""
    return (
        f"'{path.name}' has a layer of the author's own, whose code is not in it ({what}); "
        f"{_EXPORT}"
    )


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in it."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield each
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def _is_of_keras(node: dict[str, Any]) -> bool:
    """Keras may import the module of any other class by its name."""
    if not {"module", "class_name", "registered_name"} <= node.keys():
        return True
    module = node["module"] or ""
    return module == "builtins" or str(module).partition(".")[0] == "keras"

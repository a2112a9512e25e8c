"""A GGUF model in one file, or in several that llama.cpp's gguf-split has made of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.weights.gguf_header import GgufHeader, GgufTensor, read_header

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufFile:
    """One file and what it says of itself."""

    path: Path
    header: GgufHeader


@dataclass(frozen=True, slots=True)
class GgufModel:
    """All files of a model, in order. The first says what the model is."""

    files: tuple[GgufFile, ...]

    @property
    def metadata(self) -> dict[str, Any]:
        """Of the model as a whole."""
        return self.files[0].header.metadata

    @property
    def tensors(self) -> dict[str, GgufTensor]:
        """Of all files, by name."""
        return {name: each for file in self.files for name, each in file.header.tensors.items()}


def read_model(path: Path) -> GgufModel:
    """Of the first part all others, too. Raises LoadFailed."""
    files = tuple(GgufFile(part, _header(part)) for part in _parts(path))
    names = [name for file in files for name in file.header.tensors]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LoadFailed(f"tensor '{twice[:64]}' is in two parts of '{path.name}'")
    return GgufModel(files)


def _parts(path: Path) -> list[Path]:
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    names = [f"{found['stem']}-{n:05}-of-{found['count']}.gguf" for n in range(1, count + 1)]
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        raise LoadFailed(
            f"'{path.name}' is one of {count} parts, of which '{missing[0]}' is missing; put all "
            "into the same folder"
        )
    return [path.parent / name for name in names]


def _header(path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except (OSError, ValueError) as error:
        raise LoadFailed(f"'{path.name}' is no readable GGUF file: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        # Its own text says where the repository lies, too, which clients need not know.
        return error.strerror or type(error).__name__
    return str(error)

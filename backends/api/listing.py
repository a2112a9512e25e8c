"""What lies in a version folder, as a value: backends recognise their models without a disk."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from trivet.backends.api.files import ModelFiles

MAX_HEAD_BYTES = 1024 * 1024
MAX_PATHS = 4096
MAX_DEPTH = 4
"""Of the files below a version folder that are listed: models are told by what lies near the top,
and an environment or a data set may lie there, too."""


def _no_bytes(path: str) -> bytes:  # noqa: ARG001 - of a listing without a disk
    return b""


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a version folder, and what the model and its config are called.

    Paths are relative to the version folder and have slashes; "." is the folder itself.
    """

    names: frozenset[str]
    """Of files and folders at its top."""
    model_name: str = ""
    model_file: str = ""
    """The config's `default_model_filename`."""
    paths: frozenset[str] = frozenset()
    """Of files, also in folders below, as far as they are listed."""
    head_of: Callable[[str], bytes] = field(default=_no_bytes, compare=False)
    """The first MiB of a file that is there, by its path: for what names do not tell."""

    @classmethod
    def of(cls, files: ModelFiles, model_file: str = "") -> Self:
        """Reads the folder; one that does not exist is empty. Raises OSError."""
        folder = files.version_dir
        names = frozenset(path.name for path in files.entries() if not _is_hidden(path))
        paths = frozenset(_below(folder, names))
        return cls(names, files.name, model_file, paths, lambda path: _head(folder / path))

    def text_of(self, path: str) -> str:
        """The first MiB of a file that is there, as text."""
        return self.head_of(path).decode(errors="replace")

    def json_of(self, path: str) -> Mapping[str, Any]:
        """The object in a small JSON file; empty where the file is not there, large, or holds
        something else."""
        if path not in self.paths and path not in self.names:
            return {}
        try:
            found = json.loads(self.head_of(path))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def ending(self, *suffixes: str) -> list[str]:
        """The names at the top that end with one of these, whatever the case; in order."""
        wanted = tuple(suffix.lower() for suffix in suffixes)
        return sorted(name for name in self.names if name.lower().endswith(wanted))

    def folders_with(self, *names: str) -> list[str]:
        """The folders in which files of all these names lie, the outermost first."""
        found = [
            {str(PurePosixPath(path).parent) for path in self.paths if _is_named(path, name)}
            for name in names
        ]
        if found and all(name in self.names for name in names):
            found = [each | {"."} for each in found]
        both = set.intersection(*found) if found else set()
        return sorted(both, key=lambda folder: (len(PurePosixPath(folder).parts), folder))


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f"/{name}")


def _below(folder: Path, names: frozenset[str]) -> Iterator[str]:
    """The paths of files, those near the top first."""
    budget = MAX_PATHS
    pending = [(folder / name, name, 1) for name in sorted(names)]
    while pending and budget:
        path, inside, depth = pending.pop(0)
        budget -= 1
        if not path.is_dir():
            yield inside
        elif depth < MAX_DEPTH:
            children = sorted(each.name for each in path.iterdir() if not _is_hidden(each))[:budget]
            pending += ((path / name, f"{inside}/{name}", depth + 1) for name in children)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_HEAD_BYTES)

"""What lies in a version folder, as a value: backends recognise their models without a disk."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from trivet.backends.api.files import ModelFiles

MAX_TEXT_BYTES = 1024 * 1024


def _no_text(name: str) -> str:  # noqa: ARG001 - of a listing without a disk
    return ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a version folder, and what the model and its config are called."""

    names: frozenset[str]
    """Of files and folders that are there."""
    model_name: str = ""
    model_file: str = ""
    """The config's `default_model_filename`."""
    text_of: Callable[[str], str] = field(default=_no_text, compare=False)
    """The first MiB of a file that is there, as text: for suffixes that several share."""

    @classmethod
    def of(cls, files: ModelFiles, model_file: str = "") -> Self:
        """Reads the folder; one that does not exist is empty. Raises OSError."""
        folder = files.version_dir
        paths = folder.iterdir() if folder.is_dir() else ()
        names = frozenset(path.name for path in paths if path.exists())
        return cls(names, files.model_dir.name, model_file, lambda name: _text(folder / name))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_TEXT_BYTES).decode(errors="replace")

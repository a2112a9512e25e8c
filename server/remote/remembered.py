"""What sources held when all of it was last here, so that a server can start without them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp

from trivet.server.remote.paths import checked
from trivet.server.remote.source import Stamp

IN_PART = " in part"
"""Behind the address of which only some models were wanted."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One source's note."""

    address: str
    files: Mapping[str, Stamp]
    note: Path


def remember(cache: Path, address: str, files: Mapping[str, Stamp]) -> None:
    """Raises OSError."""
    note = _note(cache, address)
    rows = {path: (stamp.size, stamp.tag, stamp.sha256) for path, stamp in files.items()}
    # Servers in containers may share the folder and have the same process id.
    descriptor, name = mkstemp(dir=note.parent)
    os.close(descriptor)
    written = Path(name)
    try:
        written.write_text(json.dumps({"address": address, "files": rows}))
        written.replace(note)
    finally:
        written.unlink(missing_ok=True)


def remembered(cache: Path, address: str) -> dict[str, Stamp]:
    """The files by their paths; none if nothing is remembered."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _read(_note(cache, address))[1]
    return {}


def notes(cache: Path) -> Iterator[Remembered]:
    """All that is remembered."""
    for note in (cache / "sources").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            address, files = _read(note)
            yield Remembered(address.removesuffix(IN_PART), files, note)


def forget(note: Remembered) -> None:
    """Raises OSError."""
    note.note.unlink(missing_ok=True)


def _read(note: Path) -> tuple[str, dict[str, Stamp]]:
    document = json.loads(note.read_text())
    found = {path: Stamp(*row) for path, row in document["files"].items()}
    return str(document["address"]), dict(checked(found).files)


def _note(cache: Path, address: str) -> Path:
    return cache / "sources" / f"{hashlib.sha256(address.encode()).hexdigest()}.json"

"""What sources held when all of it was last here, so that a server can start without them."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from trivet.server.remote.paths import checked
from trivet.server.remote.source import Stamp


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
        rows = json.loads(_note(cache, address).read_text())["files"]
        found = {path: Stamp(*row) for path, row in rows.items()}
        return dict(checked(found).files)
    return {}


def _note(cache: Path, address: str) -> Path:
    return cache / "sources" / f"{hashlib.sha256(address.encode()).hexdigest()}.json"

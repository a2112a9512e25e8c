"""What a report is for: exactly these files of a version, this config, these sets."""

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from trivet.server.repository.layout import Fingerprint, ModelFolder

_FORGOTTEN_ABOVE = 4096


class Digests:
    """Of versions' contents. Large files take their time, so what was read is remembered by what
    the folder shows of it. Any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, Fingerprint], str] = {}
        self._lock = threading.Lock()

    def of(self, folder: ModelFolder, version: int) -> str:
        """Raises OSError."""
        shown = (*folder.config, *folder.evaluation, *folder.versions[version])
        key = (str(folder.path), version, shown)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = _digest(folder, version)
            with self._lock:
                if len(self._known) >= _FORGOTTEN_ABOVE:
                    self._known.clear()
                self._known[key] = found
        return found


def _digest(folder: ModelFolder, version: int) -> str:
    digest = hashlib.sha256()
    files = folder.files(version)
    for kind, root, stamps in (
        ("version", files.version_dir, folder.versions[version]),
        ("config", folder.path, _apart(folder)),
        ("evaluation", folder.path, folder.evaluation),
    ):
        for name in sorted(stamp[0] for stamp in stamps):
            _add(digest, kind.encode())
            _add(digest, name.encode("utf-8", "surrogateescape"))
            with (Path(root) / name).open("rb") as file:
                _add(digest, hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _apart(folder: ModelFolder) -> Iterable[tuple[str, int, int, int]]:
    """What is beside the versions; in a folder without version folders that is the version."""
    own = {stamp[0] for stamp in folder.versions.get(1, ())} if folder.is_flat else set()
    return [stamp for stamp in folder.config if stamp[0] not in own]


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    """With its length, so that no two lists of parts look alike."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)

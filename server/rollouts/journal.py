"""What has happened to roll-outs, a line each, for good: the state of a server that was killed, and
the audit log.

A line is a checksum and JSON. It is on the disk (fsync) before the next one is written. The last
one may be torn by a kill: what is appended then begins a new line. A broken line in the middle is
passed over and named. Several servers may share a file: each appends whole lines, reads what the
others have appended, and the one that holds the lock decides.
"""

import errno
import fcntl
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

log = logging.getLogger(__name__)
Record = Mapping[str, Any]
FILE, LOCK = "rollouts.jsonl", "rollouts.lock"


class Journal(Protocol):
    """Where records are kept. Blocking: not for the event loop."""

    def read(self) -> list[Record]:
        """Those that have come since the last look, whoever wrote them; all of them at first."""

    def append(self, records: Iterable[Record]) -> None:
        """Keeps records; returns when they are safe."""

    def leads(self) -> bool:
        """Whether this server decides, until it ends or loses the lock."""

    def close(self) -> None:
        """Lets another one decide."""


class NoJournal:
    """Of a server without a place for it: it decides, and forgets."""

    def read(self) -> list[Record]:
        """Nothing."""
        return []

    def append(self, records: Iterable[Record]) -> None:
        """Keeps nothing."""

    def leads(self) -> bool:
        """Always: nobody else knows of it."""
        return True

    def close(self) -> None:
        """Nothing is held."""


class FileJournal:
    """In a folder. One thread at a time uses it."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be made or written to."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._lock_path = folder / LOCK
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock: int | None = None
        self._read_to = 0
        _sync_folder(folder)

    def read(self) -> list[Record]:
        size = os.fstat(self._file).st_size
        if size <= self._read_to:
            return []
        data = os.pread(self._file, size - self._read_to, self._read_to)
        whole, _, torn = data.rpartition(b"\n")
        self._read_to += len(data) - len(torn)
        lines = whole.split(b"\n") if whole else []
        return [record for line in lines if (record := self._parsed(line)) is not None]

    def append(self, records: Iterable[Record]) -> None:
        lines = b"".join(map(written, records))
        if not self._ends_a_line():
            # A server was killed while it wrote: what it wrote ends here, and is no record.
            lines = b"\n" + lines
        if os.write(self._file, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fsync(self._file)

    def _ends_a_line(self) -> bool:
        size = os.fstat(self._file).st_size
        return size == 0 or os.pread(self._file, 1, size - 1) == b"\n"

    def _parsed(self, line: bytes) -> Record | None:
        record = parsed(line)
        if record is None and line:
            log.error("%s has a broken line, which is passed over: %.60s", self._path, ascii(line))
        return record

    def leads(self) -> bool:
        if self._lock is not None:
            return True
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        os.close(self._file)


def written(record: Record) -> bytes:
    """A line."""
    text = orjson.dumps(record)
    return b"%08x " % zlib.crc32(text) + text + b"\n"


def parsed(line: bytes) -> Record | None:
    """What a line says; None for one that is not whole."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _sync_folder(folder: Path) -> None:
    """So that a file that was made is still there after a fall of the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

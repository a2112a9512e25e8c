"""What has happened to roll-outs, a line each, for good: the state of a server that was killed, and
the audit log.

A line is a checksum and JSON. It is on the disk (fsync) before the next one is written. The last
one may be torn by a kill: what is appended then begins a new line. A broken line in the middle is
passed over and named. Several servers may share a file: each appends whole lines, reads what the
others have appended, and the one that holds the lock decides.
"""

import errno
import fcntl
import json
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
    """In a folder, which is made when there is something to keep. One thread at a time uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._file: int | None = None
        self._lock: int | None = None
        self._read_to = 0

    def read(self) -> list[Record]:
        if self._file is None and not self._path.exists():
            return []
        file = self._opened()
        size = os.fstat(file).st_size
        if size <= self._read_to:
            return []
        data = os.pread(file, size - self._read_to, self._read_to)
        whole, _, torn = data.rpartition(b"\n")
        self._read_to += len(data) - len(torn)
        lines = whole.split(b"\n") if whole else []
        return [record for line in lines if (record := self._parsed(line)) is not None]

    def append(self, records: Iterable[Record]) -> None:
        file = self._opened()
        lines = b"".join(map(written, records))
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            # A server was killed while it wrote: what it wrote ends here, and is no record.
            lines = b"\n" + lines
        if os.write(file, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fsync(file)

    def leads(self) -> bool:
        if self._lock is not None or not self._folder.exists():
            # Before the folder is made, no other server knows of anything.
            return True
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        for descriptor in (self._lock, self._file):
            if descriptor is not None:
                os.close(descriptor)
        self._lock = self._file = None

    def _opened(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
            _sync_folder(self._folder)
        return self._file

    def _parsed(self, line: bytes) -> Record | None:
        record = parsed(line)
        if record is None and line:
            log.error("%s has a broken line, which is passed over: %.60s", self._path, ascii(line))
        return record


def written(record: Record) -> bytes:
    """A line."""
    text = as_json(record)
    return b"%08x " % zlib.crc32(text) + text + b"\n"


def as_json(record: Record) -> bytes:
    """Also of what no file can hold as it is: a reason may be the text of a model's own fault, with
    halves of characters in it."""
    try:
        return orjson.dumps(record)
    except TypeError:
        text = json.dumps(record, ensure_ascii=False, default=str)
        return text.encode("utf-8", "replace")


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

"""What has happened to roll-outs, a line each, for good: the state of a server that was killed, and
the audit log.

A line is a checksum and JSON. It is on the disk (fsync) before the next one is written. The last
one may be torn by a kill: what is appended then begins a new line. A broken line in the middle is
passed over and named. Several servers may share a file: each appends whole lines, reads what the
others have appended, and the one that holds the lock decides. That one puts a shorter file in its
place from time to time; the others look which file it is before they append, and when they read.
"""

import errno
import fcntl
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson

log = logging.getLogger(__name__)
Record = Mapping[str, Any]
FILE, LOCK = "rollouts.jsonl", "rollouts.lock"
MOST_BYTES = 1024 * 1024
"""Of a file that is not shortened."""
TAIL = 100
"""Last lines that shortening leaves as they are: whoever has read one of them goes on behind it."""


class Journal(Protocol):
    """Where records are kept. Blocking: not for the event loop."""

    def read(self) -> list[Record]:
        """Those that have come since the last look, whoever wrote them; all of them at first."""

    def append(self, records: Iterable[Record]) -> None:
        """Keeps records; returns when they are safe."""

    def lead_s(self) -> float:
        """How long this server decides, in seconds from when it was asked; 0: it does not."""

    def shorten(self, shortened: Callable[[list[Record]], list[Record]]) -> None:
        """Forgets what is not needed any more, where much has come together. By the server that
        decides."""

    def close(self) -> None:
        """Lets another one decide."""


class NoJournal:
    """Of a server without a place for it: it decides, and forgets."""

    def read(self) -> list[Record]:
        """Nothing."""
        return []

    def append(self, records: Iterable[Record]) -> None:
        """Keeps nothing."""

    def lead_s(self) -> float:
        """Always: nobody else knows of it."""
        return math.inf

    def shorten(self, shortened: Callable[[list[Record]], list[Record]]) -> None:
        """Nothing is kept."""

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
        self._last = b""
        """The last line that was handed out."""
        self._unread: list[bytes] = []
        self._due_at = MOST_BYTES

    def read(self) -> list[Record]:
        if self._file is None and not self._path.exists():
            return []
        file = self._opened()
        if self._is_replaced():
            file = self._switched()
        lines, self._unread = [*self._unread, *self._lines(file)], []
        if lines:
            self._last = lines[-1]
        return [record for line in lines if (record := self._parsed(line)) is not None]

    def _switched(self) -> int:
        """The file that is in the place of the one that is open: read on behind what is known."""
        assert self._file is not None, "it was opened"
        self._unread += self._lines(self._file)
        last = self._unread[-1] if self._unread else self._last
        os.close(self._file)
        self._file, self._read_to = None, 0
        file = self._opened()
        lines = self._lines(file)
        if last in lines:
            del lines[: len(lines) - lines[::-1].index(last)]
        self._unread += lines
        return file

    def _lines(self, file: int) -> list[bytes]:
        """Whole ones that have not been read."""
        size = os.fstat(file).st_size
        if size <= self._read_to:
            return []
        data = os.pread(file, size - self._read_to, self._read_to)
        whole, _, torn = data.rpartition(b"\n")
        self._read_to += len(data) - len(torn)
        return whole.split(b"\n") if whole else []

    def append(self, records: Iterable[Record]) -> None:
        lines = b"".join(map(written, records))
        with self._alone() as file:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                # A server was killed while it wrote: what it wrote ends here, and is no record.
                lines = b"\n" + lines
            if os.write(file, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(file)

    def shorten(self, shortened: Callable[[list[Record]], list[Record]]) -> None:
        if self._file is None or os.fstat(self._file).st_size < self._due_at:
            return
        with self._alone() as file:
            data = os.pread(file, os.fstat(file).st_size, 0)
            lines = data.rpartition(b"\n")[0].split(b"\n")
            first = [each for each in map(self._parsed, lines[:-TAIL]) if each is not None]
            kept = b"".join(map(written, shortened(first)))
            kept += b"".join(line + b"\n" for line in lines[-TAIL:])
            self._due_at = max(MOST_BYTES, 2 * len(kept))
            made = self._path.with_suffix(".new")
            with made.open("wb") as new:
                new.write(kept)
                new.flush()
                os.fsync(new.fileno())
            made.chmod(0o600)
            made.replace(self._path)
            _sync_folder(self._folder)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, which nobody else writes or replaces meanwhile."""
        file = self._opened()
        fcntl.flock(file, fcntl.LOCK_EX)
        while self._is_replaced():
            file = self._switched()
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def lead_s(self) -> float:
        if self._lock is not None or not self._folder.exists():
            # Before the folder is made, no other server knows of anything.
            return math.inf
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return 0.0
        self._lock = lock
        return math.inf

    def _is_replaced(self) -> bool:
        """Whether what is open is not the file any more."""
        assert self._file is not None, "it was opened"
        try:
            return not os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
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

"""A repository elsewhere that lies in memory, and does at each call what the test has told it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trivet.server.remote.source import Changed, RemoteError, Stamp, Unreachable

CHUNK = 4
"""Bytes between two yields."""


@dataclass
class ScriptedSource:
    """A Source. `files` may be changed at any time; what is in `listing_faults` and `fetch_faults`
    happens to the next calls, one each."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = "test://place/models"
    listing_faults: list[Exception | Callable[[], None]] = field(default_factory=list)
    fetch_faults: list["Fault"] = field(default_factory=list)
    fetched: list[tuple[str, int]] = field(default_factory=list)
    """Path and offset of each fetch."""
    listings: int = 0
    tells_digests: bool = False

    def listing(self) -> dict[str, Stamp]:
        self.listings += 1
        if self.listing_faults:
            fault = self.listing_faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            fault()
        return {path: self.stamp(path) for path in self.files}

    def stamp(self, path: str) -> Stamp:
        content = self.files[path]
        digest = hashlib.sha256(content).hexdigest()
        return Stamp(len(content), digest[:8], digest if self.tells_digests else "")

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        self.fetched.append((path, at))
        fault = self.fetch_faults.pop(0) if self.fetch_faults else Fault()
        if fault.before is not None:
            fault.before()
        if fault.error is not None and not fault.after:
            raise fault.error
        if path not in self.files or self.stamp(path) != stamp:
            raise Changed
        content = fault.content or self.files[path]
        ends = at + fault.after if fault.after else len(content)
        for start in range(at, min(ends, len(content)), CHUNK):
            chunk = content[start : min(start + CHUNK, ends)]
            with into.open("ab") as file:
                file.write(chunk)
            yield len(chunk)
        if fault.error is not None:
            raise fault.error


@dataclass(frozen=True)
class Fault:
    """What happens to one fetch."""

    error: Exception | None = None
    after: int = 0
    """Bytes that come before it breaks off."""
    content: bytes = b""
    """What comes instead."""
    before: Callable[[], None] | None = None
    """Called before anything comes."""


def broken(after: int = 0) -> Fault:
    """A connection that breaks off."""
    return Fault(Unreachable("test://place/models cannot be reached: scripted"), after)


def refused() -> RemoteError:
    """What a source says that does not let us in."""
    return RemoteError("test://place/models may not be read: scripted")


def throttled() -> Unreachable:
    """What a source says that is asked too often."""
    return Unreachable("test://place/models: the service is overloaded (503 SlowDown)")

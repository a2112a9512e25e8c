"""What this process does to files and sockets, as Python's audit events tell it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trivet.server.http.language_rooms  # noqa: F401 - no file that a client has named


@dataclass
class Audit:
    """What was seen while it was watched."""

    opened: list[str] = field(default_factory=list)
    """Paths of files."""
    connected: list[object] = field(default_factory=list)
    """Addresses of peers."""
    looked_up: list[object] = field(default_factory=list)
    """Names of hosts."""
    ran: list[str] = field(default_factory=list)
    """Programs and code: exec, compile, subprocesses, imports of pickle."""

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            self.opened.append(str(arguments[0]))
        elif event == "socket.connect":
            self.connected.append(arguments[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.looked_up.append(arguments[0])
        elif event in ("os.system", "subprocess.Popen", "os.posix_spawn", "pickle.find_class"):
            self.ran.append(event)


_watching: list[Audit] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for audit in _watching:
        audit.note(event, arguments)


sys.addaudithook(_hook)  # It cannot be taken away again.


@contextmanager
def watched() -> Iterator[Audit]:
    """Sees what the block does, in all threads."""
    audit = Audit()
    _watching.append(audit)
    try:
        yield audit
    finally:
        _watching.remove(audit)

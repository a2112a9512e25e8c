"""The start of a process that loads pickles: without the network, before anything else.

The kernel gives a process namespaces of its own only while it has one thread, and numeric libraries
start threads when they are imported. So this module imports nothing but the standard library.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def main() -> None:
    """The program: leaves the network, then serves as any other instance process."""
    reason = leave_network()
    # Only now: it imports NumPy.
    from trivet.backends.process.child import main as serve

    serve(network="" if reason is None else f"not taken away ({reason})")


def leave_network() -> str | None:
    """Moves this process into a network of its own, in which there is nothing; the reason where the
    kernel refuses. Its user and group stay what they are."""
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "unshare"):
        return "this system has no namespaces"
    if library.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return os.strerror(ctypes.get_errno())
    # Where these are refused, files are still judged by the user outside; only names are lost.
    with suppress(OSError):
        _write("setgroups", "deny")
        _write("uid_map", f"{user} {user} 1")
        _write("gid_map", f"{group} {group} 1")
    return None


def _write(name: str, text: str) -> None:
    Path(f"/proc/self/{name}").write_text(text)

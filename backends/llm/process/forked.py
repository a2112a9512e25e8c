"""An engine's process that was forked from one which has imported the engine."""

import os
import socket
import sys

from trivet.backends.llm.process.child import serve

_MOST_BYTES = 16 << 20


def main(_network: str = "") -> None:
    """argv: descriptors of the socket and of a file with the model's name and, behind a 0, the
    settings; the server's process id."""
    socket_fd, settings_fd, _ = map(int, sys.argv[1:])
    sys.argv = [__file__]
    name, _, given = os.pread(settings_fd, _MOST_BYTES, 0).partition(b"\0")
    os.close(settings_fd)
    serve(socket.socket(fileno=socket_fd), name.decode(), given)

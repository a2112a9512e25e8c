"""What a process of ours prints: line by line in the log, with its name.

It may be a library's, or the last words of an interpreter, so it has no level of its own: it is
shown whatever the log is set to show.
"""

import logging
import os
import select
from collections import deque

log = logging.getLogger(__name__)
_READ_BYTES = 64 << 10
_MOST_READS = 16
"""At once: who prints without end does not keep the reader from what else it waits for."""
_MAX_LINE_BYTES = 64 << 10
_NUM_LAST = 20


class OutputLines:
    """The reading end of a child's standard output and error. Owns the descriptor."""

    def __init__(self, fd: int, name: str, model: str) -> None:
        """`model`: whose process it is, empty where the log knows that already."""
        self.fd = fd
        self.pid = 0
        """The child's, once it is known."""
        self.last: deque[str] = deque(maxlen=_NUM_LAST)
        """The last lines of it."""
        self._name = name
        self._model = {"model": model} if model else {}
        self._partial = b""
        os.set_blocking(fd, False)

    def forward(self) -> bool:
        """Passes on what has been printed, or a part that is large enough; False when nobody can
        print any more."""
        for _ in range(_MOST_READS):
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._partial = (self._partial + data).split(b"\n")
            if len(self._partial) > _MAX_LINE_BYTES:
                lines.append(self._partial)
                self._partial = b""
            self._write(lines)
        return True

    def follow(self) -> None:
        """Passes on until nobody can print any more, and closes. For a thread of its own."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while self.forward():
            poll.poll()
        self.close()

    def close(self) -> None:
        """Passes on the rest. Whoever still holds the other end writes into the void."""
        self.forward()
        if self._partial:
            self._write([self._partial])
        os.close(self.fd)

    def _write(self, lines: list[bytes]) -> None:
        extra = {"printed_by": self._name, "pid": self.pid, **self._model}
        for line in lines:
            text = line.decode(errors="replace")
            self.last.append(text)
            log.info("%s", text, extra=extra)

"""What an instance process prints: line by line to the server's standard error, with its name."""

import os
import sys

_READ_BYTES = 64 << 10
_MAX_LINE_BYTES = 64 << 10


class OutputLines:
    """The reading end of a child's standard output and error. Owns the descriptor."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self._name = name
        self._partial = b""
        os.set_blocking(fd, False)

    def forward(self) -> bool:
        """Passes on what has been printed; False when nobody can print any more."""
        while True:
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

    def close(self) -> None:
        """Passes on the rest. Whoever still holds the other end writes into the void."""
        self.forward()
        if self._partial:
            self._write([self._partial])
        os.close(self.fd)

    def _write(self, lines: list[bytes]) -> None:
        for line in lines:
            sys.stderr.write(f"[{self._name}] {line.decode(errors='replace')}\n")

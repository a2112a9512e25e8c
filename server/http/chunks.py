"""Sizes of a chunked body's chunks, known before their bytes have come. Pure."""

from collections.abc import Iterator

_LONGEST_LINE = 8190


class ChunkSizes:
    """Follows the bytes of one body. The HTTP parser checks their form; it tells no sizes."""

    __slots__ = ("_is_over", "_line", "_skip")

    def __init__(self) -> None:
        self._line = b""
        """What has come of a size line."""
        self._skip = 0
        """Bytes of a chunk, with the line's end behind it, that have not come."""
        self._is_over = False

    def feed(self, data: bytes) -> Iterator[int]:
        """The sizes of the chunks that begin in the next bytes."""
        while data and not self._is_over:
            if self._skip:
                num_skipped = min(self._skip, len(data))
                self._skip -= num_skipped
                data = data[num_skipped:]
                continue
            line, ended, data = data.partition(b"\n")
            self._line += line
            if ended:
                size = _size(self._line)
                self._line = b""
                self._skip = size + 2
                self._is_over = size == 0
                yield size
            elif len(self._line) > _LONGEST_LINE:
                self._is_over = True  # The parser refuses it.


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        return int(digits, 16)
    except ValueError:
        return 0  # The parser refuses it.

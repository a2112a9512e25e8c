"""Sizes of a chunked body's chunks, known before their bytes have come. Pure."""

from collections.abc import Iterator

_LONGEST_LINE = 8190


class ChunkSizes:
    """Follows the bytes of one body. The HTTP parser checks their form; it tells no sizes."""

    __slots__ = ("_behind", "_is_last", "_is_over", "_line", "_skip")

    def __init__(self) -> None:
        self._line = b""
        """What has come of a size line, or of a line of the trailers."""
        self._skip = 0
        """Bytes of a chunk, with the line's end behind it, that have not come."""
        self._is_last = False
        """Whether the chunk of size 0 has come: trailers follow, and an empty line."""
        self._is_over = False
        self._behind = b""

    def feed(self, data: bytes) -> Iterator[int]:
        """The sizes of the chunks that begin in the next bytes."""
        # By place: cutting each chunk off would copy all that follows it, once for each.
        place, end = 0, len(data)
        while place < end and not self._is_over:
            if self._skip:
                num_skipped = min(self._skip, end - place)
                self._skip -= num_skipped
                place += num_skipped
                continue
            line_end = data.find(b"\n", place)
            if line_end < 0:
                self._line += data[place:]
                place = end
                # A longer one the parser refuses.
                self._is_over = len(self._line) > _LONGEST_LINE
                break
            whole, self._line = self._line + data[place:line_end], b""
            place = line_end + 1
            if self._is_last:
                self._is_over = not whole.strip()
                continue
            size = _size(whole)
            self._is_last = size == 0
            self._skip = 0 if self._is_last else size + 2
            yield size
        self._behind = data[place:]

    def behind(self, data: bytes) -> bytes:
        """What of the next bytes lies behind the body."""
        for _ in self.feed(data):
            pass
        return self._behind


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        return int(digits, 16)
    except ValueError:
        return 0  # The parser refuses it.

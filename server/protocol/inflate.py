"""Compressed messages to plain ones: in one short step on the event loop, or the rest in a thread.

How large a message becomes is known only by unpacking it: a thousandth of its size can say it.
"""

import zlib

import numpy as np

Buffer = bytes | bytearray | memoryview
Plain = bytes | memoryview

CODINGS = ("gzip", "deflate")
_FIRST_PACKED_BYTES = 64 * 1024
_FIRST_PLAIN_BYTES = 256 * 1024
"""What the event loop may take on: a quarter of a millisecond."""
_STEP_BYTES = 33 * 1024 * 1024
"""What a thread unpacks at a time; of what is over 32 MiB the allocator keeps nothing."""
_COPY_BYTES = 2 * 1024 * 1024
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15


class NotInflatable(ValueError):
    """The bytes are no data of this coding."""


class CutOff(NotInflatable):
    """They begin well but have no end."""


class TooLong(NotInflatable):
    """They become more than the limit."""


class Inflation:
    """One message on its way. `begin`, and where that is not enough `finish`, which takes long and
    may be called by any one thread."""

    def __init__(self, packed: Buffer, coding: str, max_bytes: int) -> None:
        """`coding` is one of CODINGS."""
        window_bits = _WINDOW_BITS[coding]
        if coding == "deflate" and packed and packed[0] & 0x0F != zlib.DEFLATED:
            # Some clients leave out the zlib frame that the standard asks for.
            window_bits = _RAW_DEFLATE
        self._inflator = zlib.decompressobj(window_bits)
        self._packed = packed
        self._num_given = 0
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    @property
    def goes_on(self) -> bool:
        """Whether more bytes follow behind the message's end."""
        return bool(self._inflator.unused_data) or self._num_given < len(self._packed)

    def begin(self) -> Plain | None:
        """The whole message if it is small; None: call `finish`. Raises NotInflatable."""
        first = self._packed[:_FIRST_PACKED_BYTES]
        self._num_given = len(first)
        num_bytes = self._take(first, _FIRST_PLAIN_BYTES)
        is_all = self._num_given == len(self._packed) and num_bytes < _FIRST_PLAIN_BYTES
        return self._message() if is_all or self._inflator.eof else None

    def finish(self) -> Plain:
        """The whole message. Raises NotInflatable."""
        self._take_all(self._inflator.unconsumed_tail)
        if not self._inflator.eof:
            rest = memoryview(self._packed)[self._num_given :]
            self._num_given = len(self._packed)
            self._take_all(rest)
        while not self._inflator.eof and self._take(b"", self._step()):
            pass
        return self._message()

    def _take_all(self, packed: Buffer) -> None:
        while packed and not self._inflator.eof:
            self._take(packed, self._step())
            packed = self._inflator.unconsumed_tail

    def _step(self) -> int:
        return min(_STEP_BYTES, self._max_bytes - self._num_bytes + 1)

    def _take(self, packed: Buffer, max_bytes: int) -> int:
        """How much came of it."""
        try:
            piece = self._inflator.decompress(packed, max_bytes)
        except zlib.error:
            raise NotInflatable from None
        self._num_bytes += len(piece)
        if self._num_bytes > self._max_bytes:
            raise TooLong
        if piece:
            self._pieces.append(piece)
        return len(piece)

    def _message(self) -> Plain:
        if not self._inflator.eof:
            raise CutOff
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else _joined(pieces, self._num_bytes)


def _joined(pieces: list[bytes], size: int) -> Plain:
    """As join() does, but other threads run in between."""
    if size <= _STEP_BYTES:
        return b"".join(pieces)
    whole = np.empty(size, np.uint8).data
    place = 0
    for piece in pieces:
        for start in range(0, len(piece), _COPY_BYTES):
            part = piece[start : start + _COPY_BYTES]
            whole[place : place + len(part)] = part
            place += len(part)
    return whole

"""Length-prefixed gRPC messages out of DATA payloads; compressed ones are unpacked within limits.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import gzip
from collections.abc import Iterator

import numpy as np

from trivet.server.grpc.transport import Buffer, Code
from trivet.server.protocol.inflate import CODINGS, CutOff, Inflation, NotInflatable, Plain, TooLong

PREFIX_BYTES = 5
SMALL_BYTES = 64 * 1024
"""Messages up to this size are joined from slices; larger ones are received in place."""


class BadMessageError(Exception):
    """The call ends with this status."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Packed:
    """A compressed message."""

    __slots__ = ("_encoding", "_inflation", "_max_bytes")

    def __init__(self, body: Buffer, encoding: str, max_bytes: int) -> None:
        self._inflation = Inflation(body, encoding, max_bytes)
        self._encoding = encoding
        self._max_bytes = max_bytes

    def begin(self) -> Plain | None:
        """The message if it is small; None: it takes a `finish`. Raises BadMessageError."""
        try:
            return self._inflation.begin()
        except NotInflatable as error:
            raise self._refusal(error) from None

    def finish(self) -> Plain:
        """The message, after as long as it takes: for a thread. Raises BadMessageError."""
        try:
            return self._inflation.finish()
        except NotInflatable as error:
            raise self._refusal(error) from None

    def _refusal(self, error: NotInflatable) -> BadMessageError:
        if isinstance(error, TooLong):
            return _too_large("is larger unpacked", self._max_bytes)
        if isinstance(error, CutOff):
            return BadMessageError(Code.INTERNAL, f"the {self._encoding} message is cut off")
        text = f"the message cannot be unpacked as {self._encoding}"
        return BadMessageError(Code.INTERNAL, text)


class Assembler:
    """Puts one call's request messages together."""

    __slots__ = ("_body", "_encoding", "_filled", "_is_compressed", "_max_bytes", "_prefix")

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._prefix = b""
        self._body: memoryview | None = None
        self._filled = 0
        self._is_compressed = False

    @property
    def is_between_messages(self) -> bool:
        """Whether no message has begun."""
        return self._body is None and not self._prefix

    def missing(self) -> str:
        """How much of the message that was cut off has come."""
        if self._body is None:
            return f"{len(self._prefix)} of the {PREFIX_BYTES} bytes before a message"
        return f"{self._filled} of {len(self._body)} bytes of a message"

    def whole(self, data: bytes) -> bytes | None:
        """The one message that `data` is, as nearly all small ones come; else None, and nothing has
        happened: `feed` takes everything."""
        size = len(data) - PREFIX_BYTES
        if (
            size < 0
            or size > self._max_bytes
            or not self.is_between_messages
            or int.from_bytes(data[:PREFIX_BYTES], "big") != size
        ):
            return None
        return data[PREFIX_BYTES:]

    def feed(self, data: bytes) -> Iterator[Buffer | Packed]:
        """The messages that `data` completes. Raises BadMessageError."""
        position, end = 0, len(data)
        while position < end:
            if self._body is None:
                if self._prefix or end - position < PREFIX_BYTES:
                    taken = data[position : position + PREFIX_BYTES - len(self._prefix)]
                    self._prefix += taken
                    position += len(taken)
                    if len(self._prefix) < PREFIX_BYTES:
                        return
                    size = self._begin(self._prefix)
                    self._prefix = b""
                else:
                    size = self._begin(data[position : position + PREFIX_BYTES])
                    position += PREFIX_BYTES
                if size <= end - position:
                    yield self._finished(data[position : position + size])
                    position += size
                    continue
                self._body, self._filled = np.empty(size, np.uint8).data, 0
            taken = data[position : position + len(self._body) - self._filled]
            self._body[self._filled : self._filled + len(taken)] = taken
            position += len(taken)
            yield from self.received(len(taken))

    def place(self) -> memoryview | None:
        """Where the rest of a large message goes, to receive into; None when there is none."""
        if self._body is None or len(self._body) - self._filled < SMALL_BYTES:
            return None
        return self._body[self._filled :]

    def received(self, size: int) -> Iterator[Buffer | Packed]:
        """`size` bytes have been put at `place()`: the message, if that was its end."""
        assert self._body is not None
        self._filled += size
        if self._filled == len(self._body):
            body, self._body = self._body, None
            yield self._finished(body)

    def _begin(self, prefix: bytes) -> int:
        """The message's size, checked."""
        if prefix[0] > 1:
            raise BadMessageError(
                Code.INTERNAL, f"unknown message flag {prefix[0]}; 0 or 1 expected"
            )
        self._is_compressed = prefix[0] == 1
        if self._is_compressed and self._encoding == "identity":
            raise BadMessageError(Code.INTERNAL, "a compressed message, but no grpc-encoding")
        size = int.from_bytes(prefix[1:], "big")
        if size > self._max_bytes:
            raise _too_large(f"has {size} bytes", self._max_bytes)
        return size

    def _finished(self, body: Buffer) -> Buffer | Packed:
        return Packed(body, self._encoding, self._max_bytes) if self._is_compressed else body


def is_known(encoding: str) -> bool:
    """Whether messages of this grpc-encoding can be read."""
    return encoding == "identity" or encoding in CODINGS


def packed(message: list[Buffer], level: int) -> list[Buffer]:
    """One response message with its prefix, compressed by gzip."""
    body = gzip.compress(b"".join(message), level)
    return [b"\1" + len(body).to_bytes(4, "big"), body]


def _too_large(what: str, limit: int) -> BadMessageError:
    return BadMessageError(
        Code.RESOURCE_EXHAUSTED,
        f"the message {what}; the limit is {limit} bytes (--grpc-max-message-size)",
    )

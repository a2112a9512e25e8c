"""Request heads: HPACK block to what the call needs to know, and the blocks we answer with.

Decoding in Python costs 100 us and more, but a gRPC client sends the same block, byte for byte, for
each call of a method once its entries are in the dynamic table; a block that leaves the table as it
was means the same the next time. So blocks are remembered until one changes the table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from struct import Struct
from types import MappingProxyType
from urllib.parse import quote

import hpack

from trivet.server.grpc.http2.frames import (
    END_HEADERS,
    END_STREAM,
    ConnectionFault,
    ErrorCode,
    Kind,
)
from trivet.server.grpc.transport import Code

MAX_METADATA_BYTES = 16 * 1024
"""Of one call, as RFC 9113 counts them; a call with more fails."""
MAX_BLOCK_BYTES = 64 * 1024
"""More than that in one block, packed or unpacked, costs the connection."""
MAX_REMEMBERED = 64
MAX_REMEMBERED_BYTES = 4096
_MAX_TEXT_BYTES = 8192
_DATA, _HEADERS = int(Kind.DATA), int(Kind.HEADERS)
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
_NAME = re.compile(rb":?[0-9a-z_.!#$%&'*+^`|~-]+")
_CONTENT_TYPE = re.compile(r"application/grpc(?:$|[+; \t])")
# Values that RFC 9113 (sections 8.1.1, 8.2.2 and 8.3.1) calls malformed otherwise.
_VALUES = {
    b":path": re.compile(rb"[^\0\r\n]+"),
    b"content-length": re.compile(rb"[ \t]*[0-9]{1,19}[ \t]*"),
    b"te": re.compile(rb"[ \t]*trailers[ \t]*"),
}
_ANY = re.compile(rb"[^\0\r\n]*")
_FORBIDDEN = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade",
                        b"transfer-encoding"})  # fmt: skip
_OWN = frozenset({":method", ":path", ":scheme", ":authority", "te", "content-type",
                  "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a call says."""

    path: str
    metadata: Mapping[str, str]
    timeout_s: float | None
    encoding: str
    """Compression of the request messages; "identity" for none."""
    accepts: frozenset[str]
    """Compressions that the client can read."""
    content_length: int | None = None
    """How many bytes of DATA the client says it will send."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A head that is answered by itself, without a call."""

    block: bytes
    """The answer's header block; empty: the stream is reset as malformed."""


class HeadDecoder:
    """One connection's HPACK state. Every block must pass through it, in order."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_BLOCK_BYTES)
        self._remembered: dict[bytes, Head | Refusal] = {}
        self._num_changes = 0
        """How often a block has changed the table."""

    def decode(self, block: bytes) -> Head | Refusal:
        """The head of a call. Raises ConnectionFault when the HPACK state is lost."""
        known = self._remembered.get(block)
        if known is not None:
            return known
        num_changes = self._num_changes
        head = read_head(self.fields(block))
        if (
            num_changes == self._num_changes
            and len(self._remembered) < MAX_REMEMBERED
            and len(block) <= MAX_REMEMBERED_BYTES
        ):
            self._remembered[block] = head
        return head

    def fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of any block, in order. Every block that may change the table passes here, so
        here what is remembered is forgotten."""
        entry, num_entries, max_bytes = self._table()
        try:
            found = [(bytes(n), bytes(v)) for n, v in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"more than {MAX_BLOCK_BYTES} bytes of headers"
            ) from None
        except (hpack.HPACKError, ValueError, IndexError):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "broken header block") from None
        now_entry, now_num_entries, now_max_bytes = self._table()
        if now_entry is not entry or (now_num_entries, now_max_bytes) != (num_entries, max_bytes):
            self._remembered.clear()
            self._num_changes += 1
        return found

    def _table(self) -> tuple[object, int, int]:
        # An insertion always makes a new object the first; a resize, and one back to the same size,
        # evicts from the other end.
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (entries[0] if entries else None), len(entries), table.maxsize


def read_head(fields: list[tuple[bytes, bytes]]) -> Head | Refusal:
    """What the fields of a request mean (RFC 9113 section 8.3, gRPC over HTTP/2)."""
    if not _is_well_formed(fields):
        return Refusal(b"")
    texts = {name.decode("ascii"): value.decode("latin-1").strip(" \t") for name, value in fields}
    size = sum(len(name) + len(value) + 32 for name, value in fields)
    if texts[":method"] != "POST":
        return Refusal(_status_block(HTTPStatus.METHOD_NOT_ALLOWED))
    if not _CONTENT_TYPE.match(texts.get("content-type", "")):
        return Refusal(_status_block(HTTPStatus.UNSUPPORTED_MEDIA_TYPE))
    if size > MAX_METADATA_BYTES:
        text = f"the call's metadata has {size} bytes; the limit is {MAX_METADATA_BYTES}"
        return Refusal(failure_block(Code.RESOURCE_EXHAUSTED, text))
    timeout = texts.get("grpc-timeout")
    if timeout is not None and not _TIMEOUT.fullmatch(timeout):
        text = f"grpc-timeout is '{timeout[:32]}'; it must be at most 8 digits and a unit HMSmun"
        return Refusal(failure_block(Code.INTERNAL, text))
    return Head(
        path=texts[":path"],
        metadata=MappingProxyType({k: v for k, v in texts.items() if k not in _OWN}),
        timeout_s=None if timeout is None else int(timeout[:-1]) * _UNIT_S[timeout[-1]],
        encoding=texts.get("grpc-encoding", "identity"),
        accepts=frozenset(texts.get("grpc-accept-encoding", "").replace(" ", "").split(",")),
        content_length=int(texts["content-length"]) if "content-length" in texts else None,
    )


def _is_well_formed(fields: list[tuple[bytes, bytes]]) -> bool:
    is_regular = False
    pseudo = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or name in _FORBIDDEN:
            return False
        if not _VALUES.get(name, _ANY).fullmatch(value):
            return False
        if name[:1] != b":":
            is_regular = True
        elif is_regular:
            return False
        else:
            pseudo.append(name)
    names = set(pseudo)
    return (
        len(names) == len(pseudo)
        and {b":method", b":path", b":scheme"} <= names
        and names <= {b":method", b":path", b":scheme", b":authority"}
    )


def _literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing: ours never use the peer's dynamic table."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size])
    rest = size - 127
    encoded = bytearray([127])
    while rest > 127:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _status_block(status: HTTPStatus) -> bytes:
    return b"\x08" + _length(b"%d" % status) + b"%d" % status


_OK_HEAD = b"\x88" + _literal(b"content-type", b"application/grpc")
ANSWER_BLOCK = _OK_HEAD + _literal(b"grpc-accept-encoding", b"identity,deflate,gzip")
GZIP_ANSWER_BLOCK = ANSWER_BLOCK + _literal(b"grpc-encoding", b"gzip")
OK_TRAILERS = _literal(b"grpc-status", b"0")
_ANSWER_HEAD = Struct(f">HBBBI{len(ANSWER_BLOCK)}sHBBBI")
_ANSWER_END = Struct(f">HBBBI{len(OK_TRAILERS)}s")


def answer_head(stream_id: int, size: int) -> bytes:
    """What precedes the payload of the only DATA frame of an answer: the HEADERS frame and that
    frame's head, packed at once."""
    headers = (0, len(ANSWER_BLOCK), _HEADERS, END_HEADERS, stream_id, ANSWER_BLOCK)
    return _ANSWER_HEAD.pack(*headers, size >> 8, size & 0xFF, _DATA, 0, stream_id)


def answer_end(stream_id: int) -> bytes:
    """The frame behind it, for a call that has succeeded."""
    flags = END_HEADERS | END_STREAM
    return _ANSWER_END.pack(0, len(OK_TRAILERS), _HEADERS, flags, stream_id, OK_TRAILERS)


def trailers_block(code: Code, text: str) -> bytes:
    """The trailers of a call that has sent its head."""
    if code is Code.OK:
        return OK_TRAILERS
    message = _quoted(text)
    if len(message) > _MAX_TEXT_BYTES:
        message = _quoted(text[: _MAX_TEXT_BYTES // 12])  # at most 4 bytes of 3 for a character
    return _literal(b"grpc-status", b"%d" % code) + _literal(b"grpc-message", message)


def metadata_block(metadata: Mapping[str, str]) -> bytes:
    """Fields of ours, behind the status."""
    pairs = ((name.encode("ascii"), value.encode("ascii")) for name, value in metadata.items())
    return b"".join(_literal(*pair) for pair in pairs)


def _quoted(text: str) -> bytes:
    return quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()


def failure_block(code: Code, text: str) -> bytes:
    """The only headers of a call that fails before it has sent any ("trailers only")."""
    return ANSWER_BLOCK + trailers_block(code, text)

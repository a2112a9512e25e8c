"""A gRPC client that speaks in frames of HTTP/2, right ones and wrong ones."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import hpack
from grpc_site import Site
from heard import hear
from patience import patience

from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    Kind,
    frame,
)

HEAD = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def block(*changes: tuple[str, str]) -> bytes:
    """A head's header block without the dynamic table; an empty value leaves a field out."""
    names = dict(changes)
    fields = [(name, names.pop(name, value)) for name, value in HEAD]
    fields += list(names.items())
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([(n, v, True) for n, v in fields if v != ""], huffman=False).removeprefix(
        b"\x20"
    )


def head(stream_id: int, *changes: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    return frame(Kind.HEADERS, flags, stream_id, block(*changes))


def message(body: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def echo(stream_id: int, body: bytes = b"hello") -> bytes:
    """One whole good call."""
    return head(stream_id) + frame(Kind.DATA, END_STREAM, stream_id, message(body))


@dataclass
class Peer:
    """A client that speaks in frames."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: hpack.Decoder = field(default_factory=hpack.Decoder)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1, 2))

    def next_id(self) -> int:
        """A stream that was not used yet."""
        return next(self.ids)

    def send(self, *data: bytes) -> None:
        self.writer.writelines(data)

    async def frame(self) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(patience()):
            upper, lower, kind, flags, stream_id = frames.unpack_head(
                await self.reader.readexactly(9)
            )
            return kind, flags, stream_id, await self.reader.readexactly(upper << 8 | lower)

    async def until(self, kind: Kind, stream_id: int | None = None) -> tuple[int, bytes]:
        """Flags and payload of the next frame of a kind."""
        while True:
            found, flags, stream, payload = await self.frame()
            if found == kind and stream_id in (None, stream):
                return flags, payload

    async def goaway(self) -> ErrorCode:
        """The code the connection ends with, and that it ends."""
        _, payload = await self.until(Kind.GOAWAY)
        async with asyncio.timeout(patience()):
            assert await self.reader.read() == b""
        code = ErrorCode(int.from_bytes(payload[4:8], "big"))
        hear(code=code.name, is_closed=True)
        return code

    async def reset(self, stream_id: int) -> ErrorCode:
        _, payload = await self.until(Kind.RST_STREAM, stream_id)
        code = ErrorCode(int.from_bytes(payload, "big"))
        hear(code=code.name)
        return code

    async def headers(self, stream_id: int) -> dict[str, str]:
        _, payload = await self.until(Kind.HEADERS, stream_id)
        return {n.decode(): v.decode() for n, v in self.decoder.decode(payload, raw=True)}

    async def answer(self, stream_id: int) -> bytes:
        """The message of a good call, whose trailers must follow."""
        assert (await self.headers(stream_id))[":status"] == "200"
        _, payload = await self.until(Kind.DATA, stream_id)
        assert (await self.headers(stream_id))["grpc-status"] == "0"
        return payload[5:]

    async def status(self, stream_id: int) -> str:
        """The code of a call that fails before it has sent anything."""
        return (await self.headers(stream_id))["grpc-status"]


async def connect(site: Site) -> Peer:
    peer = Peer(*await site.open())
    peer.send(PREFACE, frames.settings({}))
    return peer

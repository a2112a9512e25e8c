"""Connections that wait for a replica reach it as they are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trivet.server.ray.slots import Replica
from trivet.server.ray.waking import Waker


class Cluster:
    """Has a replica when it is told so; it answers what it was sent, in capitals."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.is_ready = asyncio.Event()
        self.port = 0

    async def wanted(self) -> Replica:
        self.is_asked.set()
        await self.is_ready.wait()
        if not self.port:
            raise TimeoutError("no replica was ready")
        return Replica("a", "127.0.0.1", self.port, self.port)


@asynccontextmanager
async def replica() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    return reader, writer


async def test_a_request_waits_until_a_replica_is_ready() -> None:
    cluster = Cluster()
    waker = Waker(cluster.wanted, is_grpc=False)
    port = await waker.start()
    async with replica() as cluster.port:
        reader, writer = await ask(port, b"post /v2/models/m/infer")
        await cluster.is_asked.wait()
        cluster.is_ready.set()
        assert await reader.readexactly(23) == b"POST /V2/MODELS/M/INFER"
        writer.write(b" more")
        assert await reader.readexactly(5) == b" MORE"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    waker.close()


async def test_a_probe_is_answered_and_wakes_nobody() -> None:
    cluster = Cluster()
    waker = Waker(cluster.wanted, is_grpc=False)
    port = await waker.start()

    reader, writer = await ask(port, b"GET /v2/health/ready HTTP/1.1\r\n\r\n")

    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    assert not cluster.is_asked.is_set()
    writer.close()
    waker.close()


async def test_a_request_that_waited_in_vain_is_closed() -> None:
    cluster = Cluster()
    waker = Waker(cluster.wanted, is_grpc=True)
    port = await waker.start()
    cluster.is_ready.set()

    reader, writer = await ask(port, b"PRI * HTTP/2.0")

    assert await reader.read() == b""
    writer.close()
    waker.close()

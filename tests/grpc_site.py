"""Our transport with a few echoing rows, on the test's own event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from patience import patience

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.transport import Buffer, Call, Code, MessageHandler, Rows, Stream, Unary

MIB = 1024 * 1024


@dataclass
class EchoStream:
    """Sends every message back; ends when the client does."""

    call: Call
    log: list[str]

    def on_message(self, message: Buffer) -> None:
        if bytes(message) == b"raise":
            raise RuntimeError("swordfish")
        self.call.send([message])

    def on_half_close(self) -> None:
        self.log.append("half-close")
        self.call.finish()


@dataclass
class Site:
    """A running transport and what its handlers saw."""

    port: int
    transport: Http2Transport
    held: list[Call] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    """Of raw connections, to be closed at the end."""

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def seen(self, text: str) -> None:
        """Waits until the log holds `text`."""
        async with asyncio.timeout(patience()):
            while text not in self.log:
                await asyncio.sleep(0.002)

    async def holds(self, count: int) -> None:
        """Waits until so many calls are held."""
        async with asyncio.timeout(patience()):
            while len(self.held) < count:
                await asyncio.sleep(0.002)


def rows(log: list[str], held: list[Call]) -> Rows:
    """/t.T/Echo, Hold (until the test ends it), Fail, Raise, Flood (as told), Stream."""

    def echo(call: Call, message: Buffer) -> None:
        call.answer([b"", memoryview(message)[:1], memoryview(message)[1:]])

    def hold(call: Call, message: Buffer) -> None:
        held.append(call)
        call.on_cancel(lambda: log.append("cancelled"))

    def fail(call: Call, message: Buffer) -> None:
        call.fail(Code.NOT_FOUND, bytes(message).decode())

    def crash(call: Call, message: Buffer) -> None:
        raise RuntimeError("swordfish")

    def flood(call: Call, message: Buffer) -> None:
        count = int(bytes(message))
        for index in range(count):
            call.send([b"%08d" % index + bytes(1000)])
        log.append("writable" if call.is_writable else "full")
        call.on_writable(lambda: log.append("writable again"))
        call.finish()

    def open_stream(call: Call) -> MessageHandler:
        held.append(call)
        call.on_cancel(lambda: log.append("cancelled"))
        return EchoStream(call, log)

    return {
        "/t.T/Echo": Unary(echo, Scope.OPEN, Api.INFERENCE),
        "/t.T/Hold": Unary(hold, Scope.OPEN, Api.INFERENCE),
        "/t.T/Fail": Unary(fail, Scope.OPEN, Api.INFERENCE),
        "/t.T/Raise": Unary(crash, Scope.OPEN, Api.INFERENCE),
        "/t.T/Flood": Unary(flood, Scope.OPEN, Api.INFERENCE),
        "/t.T/Stream": Stream(open_stream, Scope.OPEN, Api.INFERENCE),
    }


Start = Callable[..., Awaitable[Site]]

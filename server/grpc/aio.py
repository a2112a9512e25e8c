"""The gRPC transport on grpcio's asyncio server: the reference for the seam in `transport.py`."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import grpc
import grpc.aio

from trivet.server.grpc.transport import Buffer, Code, Rows, Stream, Unary

log = logging.getLogger(__name__)
_STATUS = {status.value[0]: status for status in grpc.StatusCode}


class AioCall:
    """A `Call` over a ServicerContext. Messages to send wait in a queue for the handler task."""

    def __init__(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        self.metadata: Mapping[str, str] = {
            key: value if isinstance(value, str) else value.decode("latin-1")
            for key, value in context.invocation_metadata() or ()
        }
        remaining_s = context.time_remaining()
        self.deadline = None if remaining_s is None else time.monotonic() + remaining_s
        self.outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.status: tuple[Code, str] = (Code.OK, "")
        self._is_ended = False
        self._on_cancel: list[Callable[[], None]] = []

    @property
    def is_writable(self) -> bool:
        return self.outbox.qsize() < 64

    def on_writable(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._on_cancel.append(callback)

    def cancelled(self) -> None:
        """The client has gone or its deadline has passed."""
        if not self._is_ended:
            self._is_ended = True
            for callback in self._on_cancel:
                callback()

    def send(self, message: Sequence[Buffer]) -> None:
        if not self._is_ended:
            self.outbox.put_nowait(b"".join(message))

    def finish(self) -> None:
        self._end(Code.OK, "")

    def fail(self, code: Code, text: str) -> None:
        self._end(code, text)

    def _end(self, code: Code, text: str) -> None:
        if not self._is_ended:
            self._is_ended = True
            self.status = (code, text)
            self.outbox.put_nowait(None)


class AioTransport:
    """Serves RPC rows with grpc.aio."""

    def __init__(self, rows: Rows, *, host: str, port: int, max_message_bytes: int) -> None:
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._address = f"{host}:{port}"
        self._server = grpc.aio.server(options=options)
        for path, row in rows.items():
            service, method = path.strip("/").split("/")
            handler = _unary(row) if isinstance(row, Unary) else _stream(row)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )

    async def start(self) -> int:
        """Binds and listens; returns the port. Raises OSError."""
        try:
            port: int = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from None
        await self._server.start()
        return port

    async def drain(self, timeout_s: float) -> None:
        """Ends calls in progress for up to `timeout_s`, then closes."""
        await self._server.stop(timeout_s)


def _unary(row: Unary) -> grpc.RpcMethodHandler:
    async def handle(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        answer = b""
        async for piece in _run(AioCall(context), context, lambda call: row.handle(call, message)):
            answer = piece
        return answer

    return grpc.unary_unary_rpc_method_handler(handle)


def _stream(row: Stream) -> grpc.RpcMethodHandler:
    async def handle(
        messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> AsyncIterator[bytes]:
        call = AioCall(context)
        receiver = row.open(call)

        async def receive() -> None:
            async for message in messages:
                receiver.on_message(message)
            receiver.on_half_close()

        task = asyncio.ensure_future(receive())
        try:
            async for piece in _run(call, context, lambda _: None):
                yield piece
        finally:
            task.cancel()

    return grpc.stream_stream_rpc_method_handler(handle)


async def _run(
    call: AioCall,
    context: "grpc.aio.ServicerContext[bytes, bytes]",
    begin: Callable[[AioCall], None],
) -> AsyncIterator[bytes]:
    try:
        begin(call)
        while (piece := await call.outbox.get()) is not None:
            yield piece
        code, text = call.status
        if code is not Code.OK:
            await context.abort(_STATUS[code], text)
    finally:
        call.cancelled()

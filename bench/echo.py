"""Bare echo servers on the libraries that we serve with: `python -m bench.echo KIND`.

They take the same bytes, return them, and do nothing else; the first line printed is the port.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import grpc
import grpc.aio
import uvloop
from aiohttp import web

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MAX_BYTES = 2**28
OPTIONS = [("grpc.max_receive_message_length", MAX_BYTES), ("grpc.max_send_message_length", -1)]


def _handlers(row: grpc.RpcMethodHandler) -> tuple[grpc.GenericRpcHandler]:
    service, method = METHOD.strip("/").split("/")
    return (grpc.method_handlers_generic_handler(service, {method: row}),)


async def grpc_asyncio() -> None:
    """grpcio's asyncio server; messages stay bytes."""

    async def echo(message: bytes, context: object) -> bytes:  # noqa: ARG001
        return message

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(_handlers(grpc.unary_unary_rpc_method_handler(echo)))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def grpc_threads() -> None:
    """grpcio's thread-pool server; messages stay bytes."""
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    row = grpc.unary_unary_rpc_method_handler(lambda message, context: message)  # noqa: ARG005
    server.add_generic_rpc_handlers(_handlers(row))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


async def aiohttp_echo() -> None:
    """aiohttp's web.Application."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type="application/octet-stream")

    app = web.Application(client_max_size=MAX_BYTES)
    app.router.add_post("/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


class _Protocol(asyncio.Protocol):
    """Takes a small request of HTTP, looks for its body, and sends it back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        _, behind, body = data.partition(b"\r\n\r\n")
        body = body if behind else data
        # Some clients send the body by itself.
        if not body:
            return
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def http_protocol() -> None:
    """The event loop and its sockets: what nothing on it can be faster than."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "grpc-threads":
        grpc_threads()
    else:
        kinds = {
            "grpc-asyncio": grpc_asyncio,
            "aiohttp": aiohttp_echo,
            "http-protocol": http_protocol,
        }
        uvloop.run(kinds[kind]())

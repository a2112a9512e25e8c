"""The HTTP door: malformed, oversized, slow and hostile connections end in an answer or a close."""

import asyncio
import gzip
import io
import logging
import os
import socket
import zlib
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pytest
from http_site import FakeCore, Site, open_site
from patience import fires_after, patience

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    CheckedRequest,
    DeadlineExceeded,
    InvalidConfig,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    QueueFull,
    ServingError,
    Sink,
    TooLarge,
    Unsupported,
)
from trivet.server.http.app import HttpLimits, HttpServer

PATH = "/v2/models/ident/infer"
BODY = orjson.dumps(
    {"inputs": [{"name": "INPUT0", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
)
SMALL = HttpLimits(
    max_body_bytes=10_000,
    max_chunks=100,
    max_connections=8,
    head_timeout_s=patience(0.3),
    body_idle_timeout_s=patience(0.3),
    body_grace_s=patience(0.6),
    lingering_s=patience(0.5),
)


@pytest.fixture
async def small(core: FakeCore) -> AsyncIterator[Site]:
    opened = await open_site(core, SMALL)
    yield opened
    await opened.close()


def request(*lines: str, path: str = PATH, method: str = "POST", body: bytes = BODY) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Connection: close", *lines]
    if not any(line.startswith("Host") for line in lines):
        head.append("Host: a")
    if body and not any(line.startswith(("Content-Length", "Transfer-E")) for line in lines):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def assert_alive(site: Site) -> None:
    assert status_of(await site.send_raw(request())) == 200


async def test_a_plain_request_is_answered(site: Site) -> None:
    answer = await site.send_raw(request())
    assert status_of(answer) == 200
    assert b'"data":[1.0,2.0]' in answer
    assert b"\r\nContent-Type: application/json\r\n" in answer
    assert b"\r\nDate: " in answer


@pytest.mark.parametrize(
    ("row", "data", "statuses"),
    [
        ("H01", request(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"), {400}),
        ("H02", request("Content-Length: 5", "Content-Length: 6"), {400}),
        ("H03", request("Content-Length: -1"), {400}),
        ("H03 sign", request("Content-Length: +5"), {400}),
        ("H03 form", request("Content-Length: 1e3"), {400}),
        ("H03 size", request(f"Content-Length: {2**64}"), {400, 413}),
        ("H04", request("X: " + "a" * 16_384), {400, 431}),
        ("H05", request(*(f"X{n}: a" for n in range(5000))), {400, 431}),
        ("H06 NUL", request("X: a\0b"), {400}),
        ("H06 LF", request("X: a\nb"), {400}),
        ("H07", b"F\x80O / HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
        ("H08", request("Host: a/health?x="), {400}),
        ("H08 space", request("Host: a b"), {400}),
        ("H08 at", request("Host: user@a"), {400}),
        ("H09", b"GET /v2 HTTP/1.1\r\n\r\n", {400}),
        ("H10", request(path=f"http://evil{PATH}"), {200}),
        ("H10 else", request(path="http://evil/x"), {404}),
        ("H11 //", request(path="//v2//models"), {404}),
        ("H11 .", request(path="/v2/./models"), {404}),
        ("H11 %", request(path="/%76%32/models", method="GET"), {404}),
        ("H11 V2", request(path="/V2", method="GET"), {404}),
        ("H12 ..", request(path="/v2/models/..%2f..%2fetc/infer"), {404}),
        ("H12 . only", request(path="/v2/models/%2e%2e/infer"), {404}),
        ("H12 NUL", request(path="/v2/models/a%00b/infer"), {404}),
        ("H12 LF", request(path="/v2/models/a%0ab/infer"), {404}),
        ("H13", request(path="/v2/" + "a" * 100_000), {400, 414}),
        ("H14", request(path="/v2/models/%ff/infer"), {400, 404}),
        ("H14 overlong", request(path="/v2/models/%c0%af/infer"), {400, 404}),
        ("H14 raw", request(path="/v2/models/\xff/infer"), {400, 404}),
        ("H23 br", request("Content-Encoding: br"), {415}),
        ("H23 zstd", request("Content-Encoding: zstd"), {415}),
        ("H23 foo", request("Content-Encoding: foo"), {415}),
        ("H24", request("Content-Encoding: gzip, gzip"), {415}),
        ("H25 h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
        ("H25 TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),
    ],
)
async def test_malformed_requests_are_refused(
    site: Site, row: str, data: bytes, statuses: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    answer = await site.send_raw(data)
    assert status_of(answer) in statuses, (row, answer)
    assert b"x-request-id: " in answer
    if status_of(answer) != 200:
        assert "error" in orjson.loads(answer.partition(b"\r\n\r\n")[2])
    assert not caplog.records
    await assert_alive(site)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PROPFIND", PATH, "POST"),
        ("OPTIONS", PATH, "POST"),
        ("HEAD", PATH, "POST"),
        ("GET", PATH, "POST"),
        ("DELETE", "/v2/models", "GET"),
        ("GET", "/v2/repository/index", "POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    site: Site, method: str, path: str, allow: str
) -> None:
    async with site.session.request(method, path) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == allow
        body = await answer.read()
    assert body == (b"" if method == "HEAD" else b'{"error":"Method Not Allowed"}')


async def test_an_unknown_path_is_not_found(site: Site) -> None:
    async with site.session.get("/v3") as answer:
        assert (answer.status, await answer.read()) == (404, b'{"error":"Not Found"}')


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-1", True), ("x" * 128, True), ("x" * 129, False), ("a\u00e9", False), ("a\tb", False)],
)
async def test_a_request_id_is_echoed_if_it_is_harmless(
    site: Site, given: str, is_kept: bool
) -> None:
    async with site.session.get("/v2", headers={"x-request-id": given}) as answer:
        assert (answer.headers["x-request-id"] == given) == is_kept


async def test_every_request_without_an_id_gets_its_own(site: Site) -> None:
    ids = set()
    for _ in range(3):
        async with site.session.get("/v2") as answer:
            ids.add(answer.headers["x-request-id"])
    assert len(ids) == 3


async def test_a_slow_head_is_cut_off(small: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(b"POST /v2 HTTP/1.1\r\nX: ")
    async with asyncio.timeout(patience()):
        assert await reader.read() == b""
    writer.close()


async def test_a_slow_second_head_is_cut_off_and_an_idle_connection_is_not(small: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"}")
    # Longer than a head may take; an idle connection must outlive it.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(fires_after(5 * SMALL.head_timeout_s)):
            await reader.read(1)
    writer.write(b"G")
    async with asyncio.timeout(patience()):
        assert await reader.read() == b""
    writer.close()


async def test_a_body_that_pauses_is_cut_off(small: Site) -> None:
    answer = await small.send_raw(request("Content-Length: 900"))
    assert status_of(answer) == 408
    assert b"too slowly" in answer


async def test_a_body_that_drips_is_cut_off(small: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(request("Content-Length: 9000", body=b""))

    async def drip() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(patience()):
        answer = await reader.readuntil(b"\r\n")
    dripping.cancel()
    writer.close()
    assert status_of(answer) == 408


async def test_a_client_that_leaves_mid_body_leaves_no_trace(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request("Content-Length: 900"))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await assert_alive(site)
    assert not caplog.records


def chunked(*chunks: bytes, tail: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return request("Transfer-Encoding: chunked", body=body + tail)


async def test_chunked_bodies_are_joined(site: Site) -> None:
    answer = await site.send_raw(chunked(BODY[:10], BODY[10:11], BODY[11:]))
    assert status_of(answer) == 200


async def test_a_chunked_body_over_the_limit_is_refused(small: Site) -> None:
    answer = await small.send_raw(chunked(*[b" " * 999] * 11))
    assert status_of(answer) == 413
    assert b"Use --http-max-input-size to increase the limit." in answer
    assert b"Connection: close" in answer


async def test_too_many_chunks_are_refused(small: Site) -> None:
    assert status_of(await small.send_raw(chunked(*[b" "] * 99, BODY))) == 200
    answer = await small.send_raw(chunked(*[b" "] * 100, BODY))
    assert status_of(answer) == 400
    assert b"Chunked request body exceeds maximum of 100 non-empty chunks" in answer


async def test_a_body_over_the_limit_is_refused_before_it_is_read(small: Site) -> None:
    answer = await small.send_raw(request("Content-Length: 10001", body=b""))
    assert status_of(answer) == 413
    assert b"exceeds the maximum allowed input size of 10000 bytes" in answer


async def test_continue_is_sent_only_for_bodies_that_will_be_read(small: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(request("Expect: 100-continue", f"Content-Length: {len(BODY)}", body=b""))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert status_of(await reader.readuntil(b"\r\n")) == 200
    writer.close()
    answer = await small.send_raw(
        request("Expect: 100-continue", "Content-Length: 10001", body=b"")
    )
    assert status_of(answer) == 413


RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATED = RAW.compress(BODY) + RAW.flush()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW_DEFLATED),
        ("identity", BODY),
    ],
)
async def test_compressed_bodies_are_unpacked(site: Site, coding: str, packed: bytes) -> None:
    answer = await site.send_raw(request(f"Content-Encoding: {coding}", body=packed))
    assert status_of(answer) == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_bodies_that_unpack_beyond_the_limit_are_refused(small: Site, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    answer = await small.send_raw(
        request(f"Content-Encoding: {coding}", body=pack(b" " * 5_000_000))
    )
    assert status_of(answer) == 413
    assert b"--http-max-input-size" in answer


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)[:-4]),
        ("gzip", b"nonsense"),
        ("gzip", gzip.compress(BODY, mtime=0) + b"more"),
        ("gzip", b""),
        ("deflate", zlib.compress(BODY)[:-1]),
        ("deflate", b"\xff\xff"),
    ],
)
async def test_broken_compressed_bodies_are_refused(site: Site, coding: str, packed: bytes) -> None:
    answer = await site.send_raw(
        request(f"Content-Encoding: {coding}", f"Content-Length: {len(packed)}", body=packed)
    )
    assert status_of(answer) == 400
    await assert_alive(site)


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for number in range(1000):
        writer.write(b"GET /v2 HTTP/1.1\r\nHost: a\r\nx-request-id: n%d\r\n\r\n" % number)
    for number in range(1000):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"x-request-id: n%d\r\n" % number in head
        await reader.readuntil(b"}")
    writer.close()


async def test_connections_beyond_the_limit_are_told_so(small: Site) -> None:
    held = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"}")
        held.append(writer)
    answer = await small.send_raw(b"")
    assert status_of(answer) == 503
    assert answer.endswith(b'{"error":"too many connections are open"}')
    for writer in held:
        writer.close()
        await writer.wait_closed()
    await assert_alive(small)


async def test_old_clients_are_answered_and_closed(site: Site) -> None:
    answer = await site.send_raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200
    assert b"Connection: close" in answer


async def test_a_disconnect_cancels_the_request(site: Site) -> None:
    arrived: asyncio.Queue[CheckedRequest] = asyncio.Queue()
    cancelled = asyncio.Event()

    def hold(request: CheckedRequest, sink: Sink) -> None:
        request.cancel.on_cancel(cancelled.set)
        arrived.put_nowait(request)

    site.core.responses["ident"] = hold
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request())
    async with asyncio.timeout(patience()):
        held = await arrived.get()
        assert not held.cancel.cancelled
        writer.close()
        await cancelled.wait()


async def test_an_internal_fault_is_logged_once_and_its_text_kept_back(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(request: CheckedRequest, sink: Sink) -> None:
        raise RuntimeError("the password is 1234")

    site.core.responses["ident"] = fault
    async with site.session.post(PATH, data=BODY, headers={"x-request-id": "find-me"}) as answer:
        assert answer.status == 500
        assert (await answer.json())["error"] == (
            "internal error; the server log has the details under request id find-me"
        )
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "find-me" in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (InvalidRequest("x"), 400, None),
        (ModelNotFound("x"), 400, None),
        (TooLarge("x"), 413, None),
        (NotFound("x"), 404, None),
        (QueueFull("Exceeds maximum queue size"), 503, "1"),
        (ModelNotReady("'x' has no available versions"), 503, "1"),
        (DeadlineExceeded("x"), 504, None),
        (Cancelled("x"), 499, None),
        (Unsupported("x"), 501, None),
        (BackendFailed("x"), 500, None),
        (InvalidConfig("x"), 400, None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_errors_of_the_core_have_their_status(
    site: Site, error: ServingError, status: int, retry_after: str | None
) -> None:
    site.core.responses["ident"] = lambda request, sink: sink.fail(error)
    async with site.session.post(PATH, data=BODY) as answer:
        assert answer.status == status
        assert await answer.json() == {"error": error.message}
        assert answer.headers.get("Retry-After") == retry_after


async def test_large_bodies_are_joined_once_and_lie_aligned(site: Site) -> None:
    values = np.arange(2 * 1024 * 1024, dtype=np.float32)
    for odd in range(3):
        tensor = {
            "shape": [values.size],
            "datatype": "FP32",
            "parameters": {"binary_data_size": values.nbytes},
        }
        header = orjson.dumps(
            {
                "id": "x" * odd,
                "inputs": [tensor | {"name": "INPUT0"}, tensor | {"name": "INPUT1"}],
                "parameters": {"binary_data_output": True},
            }
        )
        headers = {
            "Inference-Header-Content-Length": str(len(header)),
            "Accept-Encoding": "identity",
        }
        body = io.BytesIO(header + values.tobytes() * 2)
        async with site.session.post("/v2/models/two/infer", data=body, headers=headers) as got:
            answer = await got.read()
            length = int(got.headers["Inference-Header-Content-Length"])
        first, second = site.core.requests[-1].inputs.values()
        address = first.numpy().ctypes.data
        assert address % 64 == 0
        # Neighbours in the one memory that the pieces from the socket were joined in.
        assert second.numpy().ctypes.data == address + values.nbytes
        assert answer[length:] == values.tobytes() * 2


async def test_a_taken_port_is_an_error(site: Site) -> None:
    server = HttpServer(site.core, HttpLimits(), "127.0.0.1", site.port)
    with pytest.raises(OSError, match="address already in use"):
        await server.start()


async def test_draining_answers_what_is_in_progress_and_takes_nothing_new(site: Site) -> None:
    arrived: asyncio.Queue[tuple[CheckedRequest, Sink]] = asyncio.Queue()
    site.core.responses["ident"] = lambda request, sink: arrived.put_nowait((request, sink))
    answer = asyncio.create_task(site.send_raw(request()))
    held, sink = await arrived.get()
    draining = asyncio.create_task(site.server.drain(patience()))
    await asyncio.sleep(0)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", site.port)
    sink.fail(QueueFull("late"))
    assert status_of(await answer) == 503
    await draining
    assert not held.cancel.cancelled


async def test_draining_waits_until_a_slow_client_has_taken_the_answer(site: Site) -> None:
    assert site.server._socket is not None
    (listening,) = site.server._socket.sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = os.urandom(60_000)  # Less than a transport holds before it lets the writer wait.
    head = (
        f"POST /v2/models/ident_uint8/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n"
        "Inference-Header-Content-Length: 0\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", site.port))
        await loop.sock_sendall(client, head.encode() + data)
        received = bytearray(await loop.sock_recv(client, 1))  # The answer has begun.
        ended = asyncio.create_task(drained_and_closed(site))
        await asyncio.sleep(0.1)  # It would have closed by now.
        while part := await loop.sock_recv(client, 2**16):
            received += part
        await ended
    is_whole = received.endswith(data)
    assert is_whole


async def drained_and_closed(site: Site) -> None:
    await site.server.drain(30.0)
    await site.server.close()


async def test_draining_cancels_what_does_not_end_in_time(site: Site) -> None:
    arrived: asyncio.Queue[CheckedRequest] = asyncio.Queue()
    site.core.responses["ident"] = lambda request, sink: arrived.put_nowait(request)
    answer = asyncio.create_task(site.send_raw(request()))
    held = await arrived.get()
    await site.server.drain(0.05)
    assert held.cancel.cancelled
    assert await answer == b""

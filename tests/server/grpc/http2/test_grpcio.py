"""Real grpcio clients get from our transport what gRPC promises."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_site import MIB, Site, Start
from patience import patience

from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.transport import Code

LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
async def channel(site: Site) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}", options=LARGE) as channel:
        yield channel


def method(channel: grpc.aio.Channel, name: str) -> grpc.aio.UnaryUnaryMultiCallable:
    return channel.unary_unary(f"/t.T/{name}")


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_384, 65_535, MIB + 1, 16 * MIB])
async def test_messages_of_any_size_come_back(channel: grpc.aio.Channel, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await method(channel, "Echo")(message) == message


async def test_many_calls_at_once_each_get_their_own_answer(channel: grpc.aio.Channel) -> None:
    echo = method(channel, "Echo")
    messages = [b"%d" % index * (index % 700) for index in range(3000)]
    assert await asyncio.gather(*(echo(m) for m in messages)) == messages


async def test_large_and_small_messages_share_a_connection(channel: grpc.aio.Channel) -> None:
    echo = method(channel, "Echo")
    sizes = [5 * MIB, 3, 7 * MIB, 100_000, 1] * 4
    answers = await asyncio.gather(*(echo(bytes(size)) for size in sizes))
    assert [len(answer) for answer in answers] == sizes


async def test_errors_carry_code_and_text(channel: grpc.aio.Channel) -> None:
    text = "no model 'größe' 100% 模型\nsecond line"
    error = await failure(method(channel, "Fail")(text.encode()))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, text)


async def test_a_text_too_long_for_a_frame_is_cut(channel: grpc.aio.Channel) -> None:
    error = await failure(method(channel, "Fail")("模".encode() * 100_000))
    assert error.details() == "模" * 682


async def test_unknown_methods_are_unimplemented(channel: grpc.aio.Channel) -> None:
    error = await failure(method(channel, "Nothing")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "/t.T/Nothing" in error.details()


async def test_a_handler_s_exception_stays_inside(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(method(channel, "Raise")(b""))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "swordfish" not in error.details()
    assert "swordfish" in caplog.text


async def test_a_deadline_ends_the_call_and_its_work(channel: grpc.aio.Channel, site: Site) -> None:
    error = await failure(method(channel, "Hold")(b"", timeout=patience(0.3)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await site.seen("cancelled")


async def test_handlers_see_the_deadline(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"", timeout=patience())
    await site.holds(1)
    assert site.held[0].deadline is not None
    site.held[0].send([])
    site.held[0].finish()
    assert await call == b""


async def test_what_fails_once_the_deadline_has_passed_is_too_late_whatever_is_heard_first(
    channel: grpc.aio.Channel, site: Site
) -> None:
    call = method(channel, "Hold")(b"", timeout=patience())
    await site.holds(1)
    held: Any = site.held[0]
    held.deadline = 0.0
    held.fail(Code.INTERNAL, "the model that was asked had not answered")
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelling_cancels_the_work(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"")
    await site.holds(1)
    call.cancel()
    await site.seen("cancelled")
    assert await method(channel, "Echo")(b"still here") == b"still here"


async def test_a_lost_connection_cancels_the_work(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"")
    await site.holds(1)
    await channel.close()
    await site.seen("cancelled")
    assert call.cancelled()


async def test_an_answer_after_the_end_is_dropped(channel: grpc.aio.Channel, site: Site) -> None:
    await failure(method(channel, "Hold")(b"", timeout=patience(0.3)))
    site.held[0].send([b"too late"])
    site.held[0].finish()
    site.held[0].fail(grpc.StatusCode.INTERNAL.value[0], "too late")
    assert await method(channel, "Echo")(b"fine") == b"fine"


async def test_metadata_reaches_the_handler(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"", metadata=[("x-tenant", "a"), ("x-twice", "1")])
    await site.holds(1)
    assert dict(site.held[0].metadata)["x-tenant"] == "a"
    assert "content-type" not in site.held[0].metadata
    call.cancel()


async def test_too_much_metadata_is_refused(channel: grpc.aio.Channel) -> None:
    error = await failure(method(channel, "Echo")(b"", metadata=[("x", "y" * 20_000)]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await method(channel, "Echo")(b"fine") == b"fine"


async def test_metadata_that_changes_with_every_call_is_read_right(
    channel: grpc.aio.Channel, site: Site
) -> None:
    for index in range(300):
        call = method(channel, "Hold")(
            b"", metadata=[("x-index", str(index % 7))], timeout=patience()
        )
        await site.holds(1)
        held = site.held.pop()
        assert held.metadata["x-index"] == str(index % 7)
        held.send([b"%d" % index])
        held.finish()
        assert await call == b"%d" % index


@pytest.mark.parametrize("method_name", ["Gzip", "Deflate"])
async def test_compressed_requests_are_read(channel: grpc.aio.Channel, method_name: str) -> None:
    compression = getattr(grpc.Compression, method_name)
    message = b"again and again " * 10_000
    assert await method(channel, "Echo")(message, compression=compression) == message


async def test_a_message_over_the_limit_names_the_flag(start: Start) -> None:
    site = await start(max_message_bytes=1000)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        error = await failure(method(channel, "Echo")(bytes(1001)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1001" in error.details()
        assert "--grpc-max-message-size" in error.details()
        bomb = method(channel, "Echo")(bytes(MIB), compression=grpc.Compression.Gzip)
        assert (await failure(bomb)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await method(channel, "Echo")(bytes(1000)) == bytes(1000)


async def test_streams_echo_in_order(channel: grpc.aio.Channel, site: Site) -> None:
    messages = [b"%d" % index * (index * 37 % 5000) for index in range(200)]

    async def requests() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    stream = channel.stream_stream("/t.T/Stream")(requests())
    assert [message async for message in stream] == messages
    await site.seen("half-close")


async def test_a_stream_answers_while_it_is_open(channel: grpc.aio.Channel) -> None:
    stream = channel.stream_stream("/t.T/Stream")()
    for text in (b"one", b"two"):
        await stream.write(text)
        assert await stream.read() == text
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_an_exception_in_a_stream_ends_it(
    channel: grpc.aio.Channel, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    stream = channel.stream_stream("/t.T/Stream")()
    await stream.write(b"raise")
    assert await stream.code() is grpc.StatusCode.INTERNAL
    assert "cancelled" in site.log
    assert "swordfish" in caplog.text


async def test_a_slow_reader_holds_back_its_own_call_only(
    channel: grpc.aio.Channel, site: Site
) -> None:
    flood = channel.unary_stream("/t.T/Flood")(b"20000")
    await site.seen("full")
    assert await method(channel, "Echo")(b"not waiting") == b"not waiting"
    count = 0
    async for message in flood:
        assert message[:8] == b"%08d" % count
        count += 1
    assert count == 20_000


async def test_draining_lets_calls_in_progress_end(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"")
    await site.holds(1)
    draining = asyncio.ensure_future(site.transport.drain(patience()))
    await asyncio.sleep(0.05)
    site.held[0].send([b"in time"])
    site.held[0].finish()
    assert await call == b"in time"
    await asyncio.wait_for(draining, patience())


async def test_draining_ends_what_takes_too_long(channel: grpc.aio.Channel, site: Site) -> None:
    call = method(channel, "Hold")(b"")
    await site.holds(1)
    await site.transport.drain(0.1)
    error = await failure(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in error.details()
    assert site.log == ["cancelled"]


async def test_an_old_connection_is_replaced_without_a_failed_call(start: Start) -> None:
    site = await start(max_connection_age_s=0.1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        echo = method(channel, "Echo")
        for index in range(60):
            assert await echo(b"%d" % index) == b"%d" % index
            await asyncio.sleep(0.01)


async def test_an_address_in_use_is_named(site: Site) -> None:
    second = Http2Transport({}, host="127.0.0.1", port=site.port, options=Http2Options(1))
    with pytest.raises(OSError, match=f"127.0.0.1:{site.port}"):
        await second.start()

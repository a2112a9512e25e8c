"""Frames, shared memory and back-off, without a process."""

import asyncio
import os
import socket
import struct

import numpy as np
import pytest
from patience import patience

from trivet.backends.api import Tensor
from trivet.backends.process.backoff import Backoff
from trivet.backends.process.channel import MAX_HEADER_BYTES, Channel, ChannelClosed
from trivet.backends.process.link import Link, Message
from trivet.backends.process.regions import RegionReader, RegionWriter
from trivet.backends.process.replies import ReplyWatch
from trivet.server.sockets import loop_factory


@pytest.fixture
def sockets() -> "tuple[socket.socket, socket.socket]":
    return socket.socketpair()


def test_frames_arrive_whole_however_they_are_cut(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    left, right = sockets
    source, end = socket.socketpair()
    with left, source, end:
        Channel(source).send({"a": 1}, b"xyz")
        Channel(source).send({"b": "é" * 1000})
        data = end.recv(100_000)
        channel = Channel(right)
        received = []
        for start in range(0, len(data), 7):
            left.sendall(data[start : start + 7])
            received += channel.receive_available()
        assert [frame.header for frame in received] == [{"a": 1}, {"b": "é" * 1000}]
        assert bytes(received[0].payload) == b"xyz"
        channel.close()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", MAX_HEADER_BYTES + 1, 0),
        struct.pack("<II", 2, 1 << 30),
        struct.pack("<II", 2, 0) + b"[{",
        b"",
    ],
)
def test_what_is_no_frame_ends_the_conversation(
    sockets: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    left, right = sockets
    left.sendall(data)
    left.close()
    channel = Channel(right)
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()


def test_a_message_that_is_too_long_is_not_sent(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    left, right = sockets
    channel = Channel(left)
    with right, pytest.raises(ValueError, match="shorten ids and parameters"):
        channel.send({"text": "x" * (MAX_HEADER_BYTES + 1)})
    channel.close()


def test_memory_of_a_message_that_could_not_be_sent_is_used_again(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    left, right = sockets
    writer = RegionWriter()
    link, reader = Link(Channel(left), writer, RegionReader()), RegionReader()
    there = Link(Channel(right), RegionWriter(), reader)
    tensor = Tensor.of("X", np.zeros(100_000))
    for _ in range(2):
        with pytest.raises(TypeError):
            link.send({"odd": "\ud83d"}, [[tensor]])
        link.send({}, [[tensor]])
        message = there.receive()
        assert message.runs[0].tensors[0].shape == (100_000,)
        del message
        writer.give_back(reader.take_released())
    assert writer.take_dropped() == []
    link.channel.close()
    there.channel.close()


def test_memory_that_could_be_cut_short_is_refused() -> None:
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="not sealed"):
        RegionReader().map(1, fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_region_is_given_back_only_when_the_last_view_is_gone() -> None:
    writer, reader = RegionWriter(), RegionReader()
    region, fd = writer.take(1000)
    assert fd is not None
    reader.map(region.id, fd)
    view = reader.lease(region.id, 1000)[10:20].view(np.int8).reshape(2, 5)[1:]
    assert reader.take_released() == []
    del view
    assert reader.take_released() == [region.id]


def test_a_region_given_back_is_taken_again_without_a_new_descriptor() -> None:
    writer = RegionWriter()
    region, fd = writer.take(1000)
    assert fd is not None
    os.close(fd)
    writer.give_back([region.id])
    assert writer.take(2000) == (region, None)


def test_few_free_regions_are_kept() -> None:
    writer = RegionWriter()
    regions = []
    for _ in range(10):
        region, fd = writer.take(1000)
        assert fd is not None
        os.close(fd)
        regions.append(region)
    writer.give_back([region.id for region in regions])
    assert len(writer.take_dropped()) == 6


def test_a_run_of_tensors_lies_joined_on_the_other_side(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    left, right = (Link(Channel(end), RegionWriter(), RegionReader()) for end in sockets)
    rows = [np.full((n, 5000), n, np.float32) for n in (1, 2)]
    left.send({"op": "x"}, [[Tensor.of("A", row) for row in rows]])
    (run,) = right.receive().runs
    joined = run.whole.view(np.float32).reshape(3, 5000)
    np.testing.assert_array_equal(joined, np.concatenate(rows))
    assert np.shares_memory(run.tensors[1].numpy(), joined)
    left.channel.close()
    right.channel.close()


def test_delays_double_up_to_a_limit_and_start_over_after_success() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay_s() for _ in range(10)]
    assert delays[:5] == [0.1, 1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == 30.0
    backoff.reset()
    assert backoff.next_delay_s() == 0.1


def test_a_thread_can_wait_on_what_the_servers_loop_has_watched() -> None:
    ends = [Link(Channel(end), RegionWriter(), RegionReader()) for end in socket.socketpair()]
    watch = ReplyWatch(ends[0])

    async def take() -> Message | None:
        loop = asyncio.get_running_loop()
        replied: asyncio.Future[bool] = loop.create_future()
        assert watch.watches(loop)
        assert os.get_blocking(ends[0].channel.fileno())
        watch.expect(replied.set_result)
        ends[1].send({"op": "done"})
        assert await asyncio.wait_for(replied, patience())
        ends[1].channel.hang_up()
        for _ in range(10):  # until the end of the stream is seen
            await asyncio.sleep(0)
        return watch.take()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        reply = runner.run(take())
    assert reply is not None
    assert reply.header == {"op": "done"}
    for each in ends:
        each.channel.close()

"""Whatever comes over a gRPC port, it is a call, a refusal or the connection's end."""

import asyncio
import contextlib
import logging
from typing import Any, cast

import pytest
from fuzzing import fuzzed, mutated
from grpc_peer import block, echo, head, message
from grpc_site import rows
from http_site import FakeCore
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import ServingError
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.codec import Decoder
from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.connection import Connection
from trivet.server.grpc.http2.frames import PREFACE, ConnectionFault, Kind, frame
from trivet.server.grpc.http2.heads import HeadDecoder
from trivet.server.grpc.http2.messages import Assembler, BadMessageError, Packed
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.wire import split_infer_request


def infer_message() -> bytes:
    request = pb.ModelInferRequest(model_name="two", model_version="1", id="a")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="FP32", shape=[2])
        request.raw_input_contents.append(bytes(8))
    request.parameters["sequence_id"].int64_param = 5
    request.parameters["p"].string_param = "q"
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 1
    return request.SerializeToString()


def typed_message() -> bytes:
    request = pb.ModelInferRequest(model_name="two")
    made = request.inputs.add(name="INPUT0", datatype="INT64", shape=[2])
    made.contents.int64_contents.extend([1, 2])
    made = request.inputs.add(name="INPUT1", datatype="BYTES", shape=[1])
    made.contents.bytes_contents.append(b"a")
    return request.SerializeToString()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(FakeCore().shared_memory)


@fuzzed
@given(data=mutated(infer_message()) | mutated(typed_message()) | st.binary(max_size=80))
def test_infer_messages(decoder: Decoder, data: bytes) -> None:
    with contextlib.suppress(ServingError):
        decoder.decode(data)


@fuzzed
@given(data=mutated(infer_message()))
def test_what_we_split_is_what_the_library_reads(data: bytes) -> None:
    """Where both read it, they read the same."""
    try:
        whole = pb.ModelInferRequest.FromString(data)
        split = split_infer_request(data)
        rest = pb.ModelInferRequest.FromString(split.header)
    except (ValueError, Exception):  # noqa: BLE001 - the library's DecodeError has no public base
        return
    assert [bytes(each) for each in split.raw] == list(whole.raw_input_contents)
    assert [each.name for each in rest.inputs] == [each.name for each in whole.inputs]


class FakeTransport:
    """Takes what is written; says when it was closed."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        self.written += b"".join(pieces)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


SETTINGS = frames.settings({})
STREAM = head(1, (":path", "/t.T/Stream"), ("grpc-encoding", "gzip"))
PIECES = st.sampled_from(
    [
        echo(1),
        echo(3),
        STREAM,
        SETTINGS,
        head(5),
        frame(Kind.DATA, 0, 1, message(b"abc")),
        frame(Kind.DATA, 1, 1, message(b"abc", 1)),
        frame(Kind.RST_STREAM, 0, 1, bytes(4)),
        frame(Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
        frame(Kind.PING, 0, 0, bytes(8)),
        frame(Kind.CONTINUATION, 4, 1, block()),
        frame(Kind.GOAWAY, 0, 0, bytes(8)),
        frame(Kind.PRIORITY, 0, 3, bytes(5)),
        frame(Kind.PUSH_PROMISE, 4, 1, bytes(8)),
        frame(Kind.DATA, 8, 1, b"\x05" + bytes(9)),
        frame(Kind.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
        frame(Kind.HEADERS, 0x24, 7, bytes(3)),
        b"\0\0\1\x63\xff\0\0\0\1x",
    ]
)
TALK = st.lists(PIECES, min_size=1, max_size=6).map(b"".join)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    talk = draw(TALK)
    return PREFACE + SETTINGS + (draw(mutated(talk)) if draw(st.booleans()) else talk)


async def feed(data: bytes, steps: list[int]) -> FakeTransport:
    """One connection that receives the bytes, cut at some places."""
    log: list[str] = []
    transport = FakeTransport()
    options = Http2Options(1 << 20)
    connection = Connection(rows(log, []), options, lambda _: None, lambda _: None)
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    position = 0
    while position < len(data) and not transport.is_closed:
        room = connection.get_buffer(-1)
        size = min(len(room), len(data) - position, steps.pop() if steps else 1 << 16)
        room[:size] = data[position : position + size]
        connection.buffer_updated(size)
        position += size
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return transport


@fuzzed
@given(
    data=conversations() | st.binary(max_size=100), steps=st.lists(st.integers(1, 40), max_size=9)
)
def test_connections(data: bytes, steps: list[int]) -> None:
    """The door of the transport writes to the log what it did not expect."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and "swordfish" not in self.format(record):
                told.append(self.format(record))

    listener = Listener()
    logging.getLogger("trivet.server.grpc").addHandler(listener)
    try:
        asyncio.run(feed(data, list(steps)))
    finally:
        logging.getLogger("trivet.server.grpc").removeHandler(listener)
    assert told == []


@fuzzed
@given(data=mutated(block(("x-a", "b"), ("grpc-timeout", "5S"))) | st.binary(max_size=80))
def test_header_blocks(data: bytes) -> None:
    with contextlib.suppress(ConnectionFault):
        HeadDecoder().decode(data)


@fuzzed
@given(data=st.binary(max_size=60), encoding=st.sampled_from(["identity", "gzip", "deflate"]))
def test_message_prefixes(data: bytes, encoding: str) -> None:
    with contextlib.suppress(BadMessageError):
        for found in Assembler(encoding, 1000).feed(data):
            if isinstance(found, Packed):
                found.finish() if found.begin() is None else None

"""Rows G01-G20: wrong gRPC messages and wrong peers against a running server.

They hold for any conforming server; the transport's own table of broken frames is in
`tests/server/grpc/http2/`, with G10, G11 and G14, whose hours and cut networks are short times and
silent clients there; G18 and G19 (TLS and keys) are in `tests/server/auth/`, and G09's storm of
cancelled calls is in test_failures.py.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from bad_input import case
from fault_room import (
    GOOD_DATA,
    MIB,
    SERVICE,
    Room,
    good_message,
    pending,
    read_all,
    statistics,
)
from grpc_peer import Peer, head, message
from heard import hear
from patience import patience
from row_marks import shows

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.http2.flood import MAX_IDLE_FRAMES
from trivet.server.grpc.http2.frames import ErrorCode, Kind, Setting, settings
from trivet.server.grpc.stream import MAX_UNREAD_BYTES
from trivet.server.grpc.transport import Code

pytestmark = pytest.mark.usefixtures("unharmed")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
Change = Callable[[pb.ModelInferRequest], object]


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as HPACK writes it without compression or memory."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


HEAD = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", SERVICE.encode() + b"ModelInfer"),
        (b":authority", b"a"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


@pytest.fixture
def peer(room: Room) -> Iterator[socket.socket]:
    """A connection that has greeted the server in HTTP/2."""
    with room.connect(port=room.server.grpc_port) as connection:
        connection.sendall(PREFACE + frame(SETTINGS))
        yield connection


@pytest.mark.rows("G01")
def test_g01_what_is_no_protobuf_is_an_invalid_argument(room: Room) -> None:
    for method in ("ModelInfer", "ModelReady", "ModelConfig", "RepositoryIndex"):
        for bad in (b"\xff" * 20, b"\x0a\x7fabc", b"\x0a\x02\xff\xff"):
            assert room.refusal(method, bad)[0] == "INVALID_ARGUMENT", (method, bad)
    assert room.refusal("ServerMetadata", b"\xff" * 20)[0] == "INVALID_ARGUMENT"


@pytest.mark.rows("G02")
def test_g02_a_message_over_the_limit_is_refused(room: Room) -> None:
    message = good_message("good", [0.0] * (17 * MIB)).SerializeToString()
    with room.memory_bound(96 * MIB):
        _, text = room.refusal("ModelInfer", message)
    assert "67108864" in text


@pytest.mark.rows("G03")
def test_g03_an_exception_tells_the_client_nothing(room: Room) -> None:
    _, text = room.refusal("ModelInfer", good_message("failing").SerializeToString())
    assert "swordfish" not in text


@pytest.mark.rows("G04")
@pytest.mark.parametrize("path", [SERVICE + "NoSuchCall", "/no.such.Service/Call", "/x"])
def test_g04_an_unknown_method_is_unimplemented(room: Room, path: str) -> None:
    room.refusal(path, b"")


@pytest.mark.rows("G05")
def test_g05_too_much_metadata_is_refused(room: Room) -> None:
    message = good_message("good").SerializeToString()
    (size_kb,) = case("G05").numbers
    room.refusal("ModelInfer", message, metadata=[("x-long", "y" * (size_kb * 1000))])


def add_contents(message: pb.ModelInferRequest) -> None:
    message.inputs[0].contents.fp32_contents.extend(GOOD_DATA)


def use_int_contents(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.int_contents.extend([1, 2, 3, 4])


def use_few_contents(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend([1.0])


CHANGES: list[tuple[str, Change, str]] = [
    ("G06 too much raw", lambda m: m.raw_input_contents.append(b""), "raw_input_contents"),
    ("G06 no data", lambda m: m.raw_input_contents.pop(), "raw_input_contents"),
    (
        "G06 both",
        add_contents,
        "contents field must not be specified when using raw_input_contents",
    ),
    ("G07 another kind", use_int_contents, "INPUT0"),
    ("V14 too few elements", use_few_contents, "INPUT0"),
    ("V32 short raw", lambda m: m.raw_input_contents.__setitem__(0, b"\0" * 15), "INPUT0"),
    ("V26 shape -1", lambda m: m.inputs[0].shape.__setitem__(0, -1), "INPUT0"),
    ("V28 shape 2^62", lambda m: m.inputs[0].shape.extend([1 << 31, 1 << 31]), "INPUT0"),
    ("V22 datatype", lambda m: setattr(m.inputs[0], "datatype", "FP31"), "FP31"),
    ("V16 no inputs", lambda m: m.inputs.pop(), ""),
    ("V18 twice", lambda m: m.inputs.append(m.inputs[0]), ""),
    ("V20 unknown output", lambda m: m.outputs.add(name="NOPE"), "NOPE"),
    ("V51 version", lambda m: setattr(m, "model_version", "one"), "one"),
    ("unknown model", lambda m: setattr(m, "model_name", "nobody"), "nobody"),
]


@pytest.mark.parametrize(
    ("change", "text"),
    [shows(name.partition(" ")[0], *row, label=name) for name, *row in CHANGES],
)
def test_g06_g07_a_wrong_request_is_an_invalid_argument(
    room: Room, change: Change, text: str
) -> None:
    message = good_message("good")
    change(message)
    _, told = room.refusal("ModelInfer", message.SerializeToString())
    assert text in told


@pytest.mark.rows("G08")
@pytest.mark.parametrize("timeout_s", [0.001, 0.0, -1.0])
def test_g08_a_deadline_that_is_past_is_exceeded(room: Room, timeout_s: float) -> None:
    message = pb.ModelInferRequest(model_name="slow")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.array(GOOD_DATA, np.float32).tobytes())
    for _ in range(20):
        room.refusal("ModelInfer", message.SerializeToString(), timeout_s=timeout_s)
    room.server.wait_until(lambda: pending(room.server) == 0, "emptied the queue")


@pytest.mark.alone
def test_g11_streams_that_say_nothing_hold_up_nobody(room: Room) -> None:
    stub = room.channel.stream_stream(SERVICE + "ModelStreamInfer")
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    held = [stub(nothing(), timeout=patience()) for _ in range(50)]
    with room.lateness_bound(1.0):
        room.assert_unharmed()
        assert room.infer(good_message("good")).raw_output_contents
    over.set()
    for stream in held:
        assert list(stream) == []


@pytest.mark.alone
@pytest.mark.rows("G12")
def test_g12_calls_reset_as_soon_as_they_are_opened_are_survived(
    room: Room, peer: socket.socket
) -> None:
    with room.memory_bound(64 * MIB), room.lateness_bound(2.0):
        try:
            for first in range(1, 40_001, 2000):
                streams = range(first, first + 2000, 2)
                peer.sendall(
                    b"".join(
                        frame(HEADERS, HEAD, 4, stream)
                        + frame(RST_STREAM, b"\0\0\0\x08", 0, stream)
                        for stream in streams
                    )
                )
            read_all(peer)
        except ConnectionError:
            hear(is_closed=True)
    room.server.wait_until(lambda: pending(room.server) == 0, "emptied the queue")


def frames_in(received: bytes) -> Iterator[tuple[int, bytes]]:
    """Kinds and payloads of whole frames."""
    while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
        yield received[3], received[9 : 9 + size]
        received = received[9 + size :]


@pytest.mark.rows("G13")
def test_g13_a_flood_of_pings_is_cut_off(room: Room, peer: socket.socket) -> None:
    # Little more than is too much: what is sent behind the end of a connection resets it.
    with room.memory_bound(32 * MIB):
        peer.sendall(frame(PING, b"12345678") * (MAX_IDLE_FRAMES + 200))
        received = read_all(peer)
    *_, (kind, payload) = frames_in(received)
    assert kind == Kind.GOAWAY
    hear(code=ErrorCode(int.from_bytes(payload[4:8], "big")).name)


@pytest.mark.alone
@pytest.mark.rows("G15")
def test_g15_a_small_message_that_unpacks_to_a_huge_one_is_refused(room: Room) -> None:
    message = good_message("good", [0.0] * (17 * MIB)).SerializeToString()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(
        room.server.grpc, options=options, compression=grpc.Compression.Gzip
    ) as channel:
        stub = channel.unary_unary(SERVICE + "ModelInfer")
        with (
            room.memory_bound(128 * MIB),
            room.lateness_bound(1.0),
            pytest.raises(grpc.RpcError) as caught,
        ):
            stub(message, timeout=patience())
    call: Any = caught.value
    hear(code=call.code().name, text=call.details())


@pytest.mark.alone
@pytest.mark.rows("G16a")
def test_g16_a_stream_that_nobody_reads_is_held_back_or_ended(room: Room) -> None:
    message = pb.ModelInferRequest(model_name="decoupled")
    message.inputs.add(name="IN", datatype="INT32", shape=[200_000])
    message.raw_input_contents.append(bytes(800_000))
    stub = room.channel.stream_stream(SERVICE + "ModelStreamInfer")
    with room.memory_bound(256 * MIB), room.lateness_bound(2.0):
        call = stub(iter([message.SerializeToString()]), timeout=patience())
        next(call)
        room.assert_unharmed()
        call.cancel()

    def ended() -> int:
        stats = statistics(room.server, "decoupled")["inference_stats"]
        return int(stats["success"]["count"] + stats["fail"]["count"])

    room.server.wait_until(lambda: ended() == 1, "ended the request")


@pytest.mark.rows("G16b")
async def test_g16_a_stream_for_which_too_much_waits_is_ended(room: Room) -> None:
    """Its client grants no window to what comes back."""
    max_responses, max_mib = case("G16b").numbers
    assert max_mib * MIB == MAX_UNREAD_BYTES
    peer = Peer(*await asyncio.open_connection("127.0.0.1", room.server.grpc_port))
    peer.send(PREFACE, settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    peer.send(head(1, (":path", SERVICE + "ModelStreamInfer")))
    asked = pb.ModelInferRequest(model_name="decoupled")
    asked.inputs.add(name="IN", datatype="INT32", shape=[10 * max_responses])
    asked.raw_input_contents.append(bytes(40 * max_responses))
    peer.send(frame(DATA, message(asked.SerializeToString()), 0, 1))
    while "grpc-status" not in (fields := await peer.headers(1)):
        pass
    peer.writer.close()
    text = fields["grpc-message"]
    assert text.startswith(f"{max_responses + 1} responses of this stream wait unread")
    assert f"the limits are {max_responses} and {MAX_UNREAD_BYTES}" in text
    hear(code=Code(int(fields["grpc-status"])).name, text=text)


@pytest.mark.rows("G17")
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160),
        bytes(range(256)) * 4,
        PREFACE + b"\xff" * 100,
        PREFACE + frame(SETTINGS) + frame(HEADERS, b"\xff" * 50, 4, 1),
        PREFACE + frame(SETTINGS) + frame(0, b"data", 1, 1),
    ],
    ids=["HTTP/1", "TLS", "garbage", "garbage after the preface", "broken head", "data of none"],
)
def test_g17_what_is_no_grpc_is_closed(room: Room, data: bytes) -> None:
    with room.connect(port=room.server.grpc_port) as connection:
        connection.sendall(data)
        read_all(connection)


@pytest.mark.rows("G20")
def test_g20_fields_that_are_not_known_are_passed_over(room: Room) -> None:
    extra = b"\xf8\x3f\x01" + b"\xfa\x3f\x03abc"  # 1023: a number, then a text
    answer = room.call("ModelInfer", good_message("good").SerializeToString() + extra)
    response = pb.ModelInferResponse.FromString(answer)
    assert response.raw_output_contents[0] == np.array(GOOD_DATA, np.float32).tobytes()


@pytest.mark.rows("V45a")
def test_v45_an_id_of_a_megabyte_is_refused(room: Room) -> None:
    message = good_message("good")
    message.id = "x" * 1_000_000
    _, text = room.refusal("ModelInfer", message.SerializeToString())
    assert "1000000 bytes; at most 4096" in text

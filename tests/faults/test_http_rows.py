"""Rows H01-H32: what is wrong below the request, HTTP itself, against a running server.

The ids are those of docs/bad-input.md. H26 (TLS), H27 (keys) and H32's rebound names are tested in
`tests/server/auth/`; of H30 200 connections with a limit of 200 stand for ten thousand.
"""

import gzip
import json
import select
import socket
import struct
import time
import zlib
from dataclasses import dataclass

import pytest
from bad_input import case
from fault_room import (
    MIB,
    Room,
    good_body,
    json_input,
    metric,
    read,
    read_all,
    read_until,
    statistics,
)
from heard import hear, hear_bytes
from patience import fires_after, patience
from row_marks import by_row, shows

pytestmark = pytest.mark.usefixtures("unharmed")
PATH = "/v2/models/good/infer"
HEAD = b"POST /v2/models/good/infer HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n"
LIMIT = 64 * MIB
BODY = good_body()
MANY = b"".join(b"x-%d: y\r\n" % index for index in range(case("H05").numbers[0]))
SIZED = b"Content-Length: %d\r\n" % len(BODY)


@dataclass(frozen=True)
class Raw:
    """Bytes whose answer docs/bad-input.md tells."""

    id: str
    data: bytes

    def __str__(self) -> str:
        return self.id


def path(row: str, target: bytes) -> Raw:
    return Raw(row, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")


RAW = [
    Raw("H01", HEAD + SIZED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Raw("H02", HEAD + SIZED + b"Content-Length: 1\r\n\r\n" + BODY),
    Raw("H03 -1", HEAD + b"Content-Length: -1\r\n\r\n"),
    Raw("H03 +5", HEAD + b"Content-Length: +5\r\n\r\nabcde"),
    Raw("H03 1e3", HEAD + b"Content-Length: 1e3\r\n\r\n"),
    Raw("H03 2^64", HEAD + b"Content-Length: 18446744073709551616\r\n\r\n"),
    Raw("H04", LIVE + b"x: " + b"y" * (case("H04").numbers[0] * 1024) + b"\r\n\r\n"),
    Raw("H05", LIVE + MANY + b"\r\n"),
    Raw("H06 NUL", LIVE + b"x: a\0b\r\n\r\n"),
    Raw("H06 CR", LIVE + b"x: a\rb\r\n\r\n"),
    Raw("H06 LF", b"GET /v2/health/live HTTP/1.1\nHost: a\nx: a\n b\n\n"),
    Raw("H07a bytes", b"F\x80O /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"),
    Raw("H08", b"GET /v2/health/live HTTP/1.1\r\nHost: a/health?x=\r\n\r\n"),
    Raw("H09", b"GET /v2/health/live HTTP/1.1\r\n\r\n"),
    path("H10", b"http://evil/v2/health/live"),
    path("H11 slashes", b"//v2//models"),
    path("H11 dot", b"/v2/./models"),
    path("H11 escaped", b"/%76%32/health/live"),
    path("H11 case", b"/V2/health/live"),
    path("H12 up", b"/v2/models/..%2f..%2fetc/config"),
    path("H12 NUL", b"/v2/models/a%00b/config"),
    path("H13 long", b"/v2/models/" + b"x" * (case("H13").numbers[0] * 1000)),
    path("H13 query", b"/v2/health/live?" + b"a=b&" * case("H13").numbers[1]),
    path("H14a ff", b"/v2/models/%ff/config"),
    path("H14a overlong", b"/v2/models/%c0%af/config"),
    path("H14b raw", b"/v2/models/\xff/config"),
    Raw("H18", HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1)),
    Raw("H25 h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    Raw("H25 TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160)),
]


@pytest.mark.parametrize("row", by_row(RAW))
def test_a_malformed_message_is_answered_and_ended(room: Room, row: Raw) -> None:
    answer = room.send_raw(row.data)
    if not answer.startswith(b"HTTP/1.1 200 "):
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


@pytest.mark.more_of("H03", "H04", "H05")
def test_h03_to_h05_are_refused_before_anything_is_kept(room: Room) -> None:
    """A head without an end is not collected."""
    with room.memory_bound(8 * MIB):
        answer = room.send_raw(LIVE + b"x: " + b"y" * (16 * MIB))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        shows("H07b", "PROPFIND", "/v2/health/live", "GET"),
        shows("H29", "OPTIONS", PATH, "POST"),
        shows("H29", "HEAD", PATH, "POST"),
        shows("H07b", "GET", PATH, "POST"),
        shows("H07b", "DELETE", "/v2/models/good", "GET"),
        shows("H07b", "POST", "/v2/health/live", "GET"),
    ],
)
def test_h07_h29_a_wrong_method_is_told_the_right_one(
    room: Room, method: str, target: str, allowed: str
) -> None:
    assert room.request(method, target).headers["allow"] == allowed


@pytest.mark.rows("H12")
@pytest.mark.parametrize("target", [b"..%2f..%2fetc", b"a%00b", b"%2e%2e"])
def test_h12_a_path_inside_a_name_is_not_found(room: Room, target: bytes) -> None:
    head = b"POST /v2/models/" + target + b"/infer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    answer = room.send_raw(head + SIZED + b"\r\n" + BODY)
    assert b"root:" not in answer


@pytest.mark.rows("H15")
def test_h15_a_head_that_drips_is_cut_off(room: Room) -> None:
    with room.connect() as connection:
        started = time.monotonic()
        try:
            for byte in LIVE * 100:
                connection.sendall(bytes([byte]))
                connection.settimeout(fires_after(0.05))
                try:
                    if connection.recv(1024) == b"":
                        hear(is_closed=True)
                        break
                except TimeoutError:
                    continue
        except ConnectionError:
            hear(is_closed=True)
    # All of it would take minutes.
    assert 0.5 < time.monotonic() - started < patience(5)


@pytest.mark.rows("H16")
def test_h16_a_body_that_drips_is_cut_off(room: Room) -> None:
    clients = [room.connect() for _ in range(50)]
    with room.memory_bound(16 * MIB):
        for client in clients:
            client.sendall(HEAD + b"Content-Length: 33554432\r\n\r\n" + b" ")
        answers = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert {answer[:13] for answer in answers} == {
        b"HTTP/1.1 %d " % status for status in case("H16").statuses
    }


@pytest.mark.rows("H17")
@pytest.mark.parametrize("reset", [False, True])
def test_h17_a_body_that_is_cut_off_is_no_fault_of_ours(room: Room, reset: bool) -> None:
    logged = len(room.server.output)
    with room.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    room.assert_unharmed()
    assert not any("Traceback" in line for line in room.server.output[logged:])


@pytest.mark.rows("H18")
def test_h18_the_text_names_the_flag_and_nothing_was_read(room: Room) -> None:
    with room.memory_bound(8 * MIB), room.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
        answer = read_until(connection, b'"}')
    assert b"exceeds the maximum allowed input size of 67108864" in answer
    assert b"Use --http-max-input-size to increase the limit." in answer


@pytest.mark.rows("H19")
def test_h19_a_chunked_body_that_grows_too_large_is_refused(room: Room) -> None:
    chunk = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    with room.memory_bound(3 * LIMIT), room.connect() as connection:
        connection.sendall(CHUNKED + chunk * 64)
        # No more than what makes it too large: what is sent after the answer would reset it.
        connection.sendall(b"1\r\n ")
        read_all(connection)


@pytest.mark.rows("H20")
def test_h20_a_body_of_too_many_chunks_is_refused(room: Room) -> None:
    with room.memory_bound(64 * MIB):
        for _ in range(8):
            with room.connect() as connection:
                connection.sendall(CHUNKED + b"1\r\n \r\n" * case("H20").numbers[0])
                connection.shutdown(socket.SHUT_WR)  # else the rest of the body is waited for
                answer = read_all(connection)
            assert b"Chunked request body exceeds maximum of 65536 non-empty chunks" in answer


@pytest.mark.alone
@pytest.mark.rows("H21")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_h21_a_small_body_that_unpacks_to_a_huge_one_is_refused(room: Room, coding: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(256)) + packer.flush()
    with room.memory_bound(2 * LIMIT), room.lateness_bound(1.0):
        room.post(PATH, bomb, {"Content-Encoding": coding})


@pytest.mark.rows("H22")
def test_h22_broken_gzip_is_refused_and_not_kept(room: Room) -> None:
    whole = gzip.compress(BODY)
    wrong = whole[:-8] + bytes(8)
    connection = room.http()
    with room.memory_bound(16 * MIB):
        for index in range(1000):
            body = (whole[:20], wrong, b"\x1f\x8b" + bytes(100))[index % 3]
            connection.request("POST", PATH, body, {"Content-Encoding": "gzip"})
            read(connection)
    connection.close()


@pytest.mark.parametrize(
    "coding",
    [
        *(shows("H23", coding) for coding in ("br", "zstd", "foo")),
        *(shows("H24", coding) for coding in ("gzip, gzip", "gzip,deflate")),
    ],
)
def test_h23_h24_other_codings_are_not_supported(room: Room, coding: str) -> None:
    answer = room.post(PATH, gzip.compress(BODY), {"Content-Encoding": coding})
    assert "gzip" in answer.headers["accept-encoding"]


@pytest.mark.rows("H28")
def test_h28_a_thousand_pipelined_requests_are_answered_in_order(room: Room) -> None:
    messages = []
    (count,) = case("H28").numbers
    for index in range(count):
        body = good_body(id=str(index))
        messages.append(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    messages.append(LIVE + b"Connection: close\r\n\r\n")
    answer = room.send_raw(b"".join(messages))
    ids = [part.split(b'"')[0] for part in answer.split(b'"id":"')[1:]]
    assert ids == [b"%d" % index for index in range(count)]


@pytest.mark.rows("H30")
def test_h30_connections_beyond_the_limit_are_refused_and_the_others_served(room: Room) -> None:
    crowd = {room.connect() for _ in range(250)}
    refused: set[socket.socket] = set()
    deadline_s = time.monotonic() + patience()
    while len(refused) < 50:
        assert time.monotonic() < deadline_s, f"{len(refused)} are refused"
        refused |= told_off(crowd - refused, wait_s=0.1)
    room.assert_unharmed()  # on a connection that was there before
    refused |= told_off(crowd - refused, wait_s=0)
    for connection in crowd:
        connection.close()
    assert len(refused) <= 60


def told_off(crowd: set[socket.socket], *, wait_s: float) -> set[socket.socket]:
    """Those that are refused now or soon."""
    answered, _, _ = select.select(crowd, [], [], wait_s)
    told = {each: each.recv(1024) for each in answered}
    for answer in told.values():
        hear_bytes(answer)
    return {each for each, answer in told.items() if answer.startswith(b"HTTP/1.1 503 ")}


@pytest.mark.rows("H31")
def test_h31_a_client_that_leaves_a_stream_stops_the_model(room: Room) -> None:
    count = 2000
    body = json.dumps({"IN": [1] * count, "DELAY": [5] * count}).encode()
    connection = room.connect()
    connection.sendall(
        b"POST /v2/models/decoupled/generate_stream HTTP/1.1\r\nHost: a\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    assert b"data: " in read_until(connection, b"data: ")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

    def ended() -> int:
        stats = statistics(room.server, "decoupled")["inference_stats"]
        return int(stats["success"]["count"] + stats["fail"]["count"])

    # The model would go on for ten seconds.
    room.server.wait_until(lambda: ended() == 1, "ended the request")
    assert metric(
        room.server, "nv_inference_request_failure", model="decoupled", reason="CANCELED"
    ) == [1.0]


@pytest.mark.rows("H32")
@pytest.mark.parametrize(
    "target",
    [
        "/v2/repository/models/good/unload",
        "/v2/repository/models/good/load",
        "/v2/systemsharedmemory/unregister",
        "/v2/systemsharedmemory/region/x/register",
    ],
)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_h32_a_page_of_another_site_changes_nothing(room: Room, target: str, origin: str) -> None:
    answer = room.post(target, b"{}", {"Origin": origin})
    assert "another site" in answer.error


def test_h32_a_page_of_this_site_may(room: Room) -> None:
    origin = {"Origin": f"http://{room.server.http}"}
    assert room.post("/v2/repository/models/good/load", b"{}", origin).status == 200


def test_a_request_line_that_is_no_http_is_refused(room: Room) -> None:
    assert room.send_raw(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_wrong_numbers_in_parallel_harm_no_other_client(room: Room) -> None:
    """Bad and good requests on connections of their own, mixed."""
    good = json.dumps({"inputs": [json_input(data=[1.0, 2.0, 3.0, 4.0], shape=[4])]}).encode()
    connections = [room.http() for _ in range(60)]
    for index, connection in enumerate(connections):
        connection.request("POST", PATH, good if index % 2 else b"{")
    statuses = [read(connection).status for connection in connections]
    for connection in connections:
        connection.close()
    assert statuses == [400, 200] * 30

"""Messages come out of DATA payloads the same however they are cut."""

import gzip
import itertools
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.server.grpc.http2.messages import SMALL_BYTES, Assembler, BadMessageError, Packed
from trivet.server.grpc.transport import Buffer

PACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def framed(message: bytes, encoding: str) -> bytes:
    body = PACK[encoding](message)
    return bytes([encoding != "identity"]) + len(body).to_bytes(4, "big") + body


def plain(message: Buffer | Packed) -> bytes:
    if not isinstance(message, Packed):
        return bytes(message)
    begun = message.begin()
    return bytes(message.finish() if begun is None else begun)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.sampled_from(sorted(PACK)),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_messages_survive_any_cutting(
    messages: list[bytes], encoding: str, places: list[int]
) -> None:
    assembler = Assembler(encoding, max_bytes=1000)
    parts = cut(b"".join(framed(m, encoding) for m in messages), places)
    assert [plain(m) for part in parts for m in assembler.feed(part)] == messages
    assert assembler.is_between_messages


@given(st.integers(0, 3 * SMALL_BYTES), st.lists(st.integers(1, 2 * SMALL_BYTES), max_size=6))
def test_large_messages_are_put_together_in_place(first: int, steps: list[int]) -> None:
    message = bytes(range(256)) * (4 * SMALL_BYTES // 256)
    data = framed(message, "identity")
    assembler = Assembler("identity", max_bytes=len(message))
    found = list(assembler.feed(data[: 5 + first]))
    position = 5 + first
    while not found:
        size = steps.pop() if steps else SMALL_BYTES
        place = assembler.place()
        part = data[position : position + size]
        if place is None:
            found += assembler.feed(part)
        else:
            part = part[: len(place)]
            place[: len(part)] = part
            found += assembler.received(len(part))
        position += len(part)
    assert [plain(m) for m in found] == [message]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_unpacked_message_may_be_as_large_as_the_limit_and_no_larger(encoding: str) -> None:
    (message,) = Assembler(encoding, max_bytes=5000).feed(framed(bytes(5000), encoding))
    assert plain(message) == bytes(5000)
    (message,) = Assembler(encoding, max_bytes=5000).feed(framed(bytes(5001), encoding))
    with pytest.raises(BadMessageError, match="5000 bytes"):
        plain(message)


def test_what_is_missing_is_told() -> None:
    assembler = Assembler("identity", max_bytes=100)
    assert list(assembler.feed(framed(b"abcdef", "identity")[:8])) == []
    assert assembler.missing() == "3 of 6 bytes of a message"


@given(
    st.binary(max_size=300), st.sampled_from(sorted(PACK)), st.integers(min_value=-3, max_value=3)
)
def test_only_what_is_one_plain_message_is_taken_whole(
    message: bytes, encoding: str, cut_off: int
) -> None:
    data = framed(message, encoding)
    data = data[:cut_off] if cut_off < 0 else data + bytes(cut_off)
    assembler = Assembler(encoding, 1000)
    is_whole = cut_off == 0 and encoding == "identity"
    assert assembler.whole(data) == (message if is_whole else None)
    assert assembler.is_between_messages


def test_the_rest_of_a_message_is_not_taken_for_one() -> None:
    assembler = Assembler("identity", 1000)
    inner = framed(b"hello", "identity")
    assert list(assembler.feed(framed(inner, "identity")[:5])) == []
    assert assembler.whole(inner) is None
    assert [plain(each) for each in assembler.feed(inner)] == [inner]


def test_a_message_over_the_limit_is_left_to_be_refused() -> None:
    assembler = Assembler("identity", 4)
    assert assembler.whole(framed(b"hello", "identity")) is None
    with pytest.raises(BadMessageError, match="has 5 bytes; the limit is 4"):
        list(assembler.feed(framed(b"hello", "identity")))

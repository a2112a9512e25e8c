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

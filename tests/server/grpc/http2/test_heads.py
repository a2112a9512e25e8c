"""Heads are read right, also those that are remembered instead of decoded."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.server.grpc.http2.heads import (
    Head,
    HeadDecoder,
    Refusal,
    failure_block,
    read_head,
    trailers_block,
)
from trivet.server.grpc.transport import Code

BASE = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a/B"),
    (b"content-type", b"application/grpc+proto"),
]
names = st.sampled_from([b"x-a", b"x-b", b"x-c"])
values = st.sampled_from([b"1", b"22", b"long " * 300 + b"end"])


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(names, values, st.booleans()), max_size=4), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_remembered_heads_mean_what_was_sent(
    calls: list[tuple[list[tuple[bytes, bytes, bool]], bool]],
) -> None:
    encoder, decoder = hpack.Encoder(), HeadDecoder()
    for fields, shrinks in calls:
        if shrinks:
            encoder.header_table_size = 100 if encoder.header_table_size > 100 else 4096
        block = encoder.encode([(n, v, False) for n, v in BASE] + fields)
        head = decoder.decode(block)
        assert isinstance(head, Head)
        assert head.path == "/a/B"
        assert head.metadata == {n.decode(): v.decode() for n, v, _ in fields}


def test_a_repeated_block_is_not_decoded_again() -> None:
    encoder, decoder = hpack.Encoder(), HeadDecoder()
    decoder.decode(encoder.encode(BASE))
    block = encoder.encode(BASE)
    assert decoder.decode(block) is decoder.decode(block)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2H", 7200), ("3M", 180), ("4S", 4), ("5m", 0.005), ("6u", 6e-6), ("7n", 7e-9)],
)
def test_time_outs_have_units(text: str, seconds: float) -> None:
    head = read_head([*BASE, (b"grpc-timeout", text.encode())])
    assert isinstance(head, Head)
    assert head.timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "S", "-1S", "123456789S", "1.5S", "1s", "1 S"])
def test_broken_time_outs_are_refused(text: str) -> None:
    assert isinstance(read_head([*BASE, (b"grpc-timeout", text.encode())]), Refusal)


def decoded(block: bytes) -> dict[str, str]:
    return {n.decode(): v.decode() for n, v in hpack.Decoder().decode(block, raw=True)}


@pytest.mark.parametrize("text", ["", "plain", "größe 100%", "a\nb", "x" * 5000, "模" * 5000])
def test_blocks_that_we_send_can_be_read(text: str) -> None:
    block = failure_block(Code.NOT_FOUND, text)
    fields = decoded(block)
    assert fields[":status"] == "200"
    assert fields["grpc-status"] == "5"
    assert len(block) < 16_384
    assert decoded(trailers_block(Code.OK, "")) == {"grpc-status": "0"}

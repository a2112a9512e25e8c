"""Compressed messages are unpacked to a limit, and never in one long step."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.server.protocol.inflate import CutOff, Inflation, NotInflatable, TooLong

MIB = 1024 * 1024
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
NOISE = random.Random(5).randbytes(300_000)


def inflated(packed: bytes, coding: str = "gzip", max_bytes: int = 8 * MIB) -> bytes:
    inflation = Inflation(packed, coding, max_bytes)
    plain = inflation.begin()
    return bytes(inflation.finish() if plain is None else plain)


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize(
    "plain",
    [b"", b"a", bytes(256 * 1024), bytes(256 * 1024 + 1), bytes(5 * MIB), NOISE, NOISE * 9],
    ids=lambda plain: len(plain),
)
def test_what_was_packed_comes_out(coding: str, plain: bytes) -> None:
    assert inflated(PACK[coding](plain), coding) == plain


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_any_limit_is_kept_to_the_byte(plain: bytes, limit: int) -> None:
    packed = gzip.compress(plain)
    if len(plain) <= limit:
        assert inflated(packed, max_bytes=limit) == plain
    else:
        with pytest.raises(TooLong):
            inflated(packed, max_bytes=limit)


def test_deflate_without_its_frame_is_understood() -> None:
    assert inflated(zlib.compress(NOISE)[2:-4], "deflate") == NOISE


@pytest.mark.parametrize("plain", [b"a" * 99, NOISE, bytes(5 * MIB)], ids=len)
def test_what_has_no_end_is_told_apart_from_what_is_no_data(plain: bytes) -> None:
    packed = gzip.compress(plain)
    with pytest.raises(CutOff):
        inflated(packed[:-4])
    with pytest.raises(NotInflatable):
        inflated(packed[:-8] + bytes(8))
    with pytest.raises(NotInflatable):
        inflated(b"nonsense")


@pytest.mark.parametrize("plain", [b"a" * 99, NOISE, bytes(5 * MIB)], ids=len)
@pytest.mark.parametrize("more", [b"", b"x", bytes(200_000)], ids=len)
def test_what_follows_the_end_is_noticed(plain: bytes, more: bytes) -> None:
    inflation = Inflation(gzip.compress(plain) + more, "gzip", 8 * MIB)
    assert (inflation.begin() or inflation.finish()) == plain
    assert inflation.goes_on == bool(more)


def test_the_first_step_is_short_whatever_comes_of_it() -> None:
    """A kilobyte that becomes a megabyte, and a megabyte that becomes one, are for a thread."""
    assert Inflation(gzip.compress(bytes(MIB)), "gzip", 8 * MIB).begin() is None
    assert Inflation(gzip.compress(NOISE), "gzip", 8 * MIB).begin() is None


def test_a_bomb_is_given_up_at_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    inflation = Inflation(bomb, "gzip", 2 * MIB)
    assert inflation.begin() is None
    with pytest.raises(TooLong):
        inflation.finish()


def test_large_messages_come_out_whole() -> None:
    """More than one step of a thread, and joined in pieces."""
    plain = NOISE[:1000] * 70_000
    packed = zlib.compress(plain, 1)
    assert inflated(packed, "deflate", len(plain)) == plain
    with pytest.raises(TooLong):
        inflated(packed, "deflate", len(plain) - 1)

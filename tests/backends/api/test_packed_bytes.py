"""Finding packed strings: quick for long runs and for few, exact for all."""

import random
import struct

import pytest

from trivet.backends.api import DataType, PackedBytes, Tensor


def pack(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def mixed(seed: int) -> list[bytes]:
    """Runs of equal lengths and stretches of different ones."""
    source = random.Random(seed)
    elements: list[bytes] = []
    while len(elements) < 3000:
        length, count = source.randrange(6), source.choice([1, 2, 63, 64, 65, 500])
        elements += [source.randbytes(length)] * count
    return elements


@pytest.mark.parametrize("seed", range(8))
def test_every_element_is_found_whatever_the_lengths(seed: int) -> None:
    elements = mixed(seed)
    packed = PackedBytes.parse(memoryview(pack(*elements)))
    assert packed.objects().tolist() == elements
    part = packed.slice(100, 200)
    assert part.objects().tolist() == elements[100:200]


@pytest.mark.parametrize("limit", [0, 1, 63, 64, 65, 1024, 2999])
def test_no_more_than_one_too_many_is_looked_for(limit: int) -> None:
    packed = PackedBytes.parse(memoryview(pack(*mixed(1))), limit)
    assert len(packed) == limit + 1


def test_a_run_longer_than_a_block_is_found_to_its_end() -> None:
    packed = PackedBytes.parse(memoryview(bytes(4 * 200_000)))
    assert len(packed) == 200_000
    assert packed.offsets[-1] == 800_000


@pytest.mark.parametrize("before", [0, 1, 64, 200])
@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"\x05\0\0\0abc", "expecting string of length 5 but only 3 bytes available"),
        (b"\xff\xff\xff\xff", "expecting string of length 4294967295 but only 0 bytes available"),
        (b"\0\0\0", "expecting 4 bytes, got 3"),
    ],
)
def test_what_is_cut_off_is_named_with_its_place(before: int, tail: bytes, text: str) -> None:
    raw = pack(*[b"ab"] * before) + tail
    with pytest.raises(ValueError, match=f"at byte {before * 6}: {text}"):
        PackedBytes.parse(memoryview(raw))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2,), "unexpected number of string elements 3, expecting 2"),
        ((4,), "expected 4 string elements, got 3"),
        ((10**12,), "expected 1000000000000 string elements, got at most 4"),
    ],
)
def test_a_tensor_holds_as_many_strings_as_its_shape_says(
    shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Tensor.from_raw("x", DataType.BYTES, shape, pack(b"a", b"b", b"cccc"))

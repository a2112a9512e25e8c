"""Numbers to blocks of GGUF types that the gguf package reads and does not write. Not as finely
chosen as llama.cpp's; what lies where is as ggml-common.h says."""

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np

Numbers = np.ndarray[Any, Any]
BLOCK = 256


def written(name: str, numbers: Numbers) -> Numbers:
    """The bytes of rows: uint8 [outputs, bytes]; inputs are whole blocks of 256."""
    outputs = len(numbers)
    blocks = numbers.astype(np.float32).reshape(outputs, -1, BLOCK)
    return np.concatenate(WRITERS[name](blocks), axis=-1).reshape(outputs, -1)


def _half(numbers: Numbers) -> Numbers:
    """[..] to [.., 2] bytes."""
    return np.ascontiguousarray(numbers.astype(np.float16))[..., None].view(np.uint8)


def _rounded(numbers: Numbers, unit: Numbers, most: int) -> Numbers:
    safe = np.where(unit == 0, 1, unit)
    return np.clip(np.rint(numbers / safe), 0, most).astype(np.uint8)


def _from_least(blocks: Numbers, size: int, bits: int, scale_bits: int) -> tuple[Numbers, ...]:
    """Codes [.., 256], whole scales and minimums [.., groups], and what both are times."""
    groups = blocks.reshape(*blocks.shape[:-1], -1, size)
    least = np.minimum(groups.min(-1), 0)
    scales, largest = (groups.max(-1) - least) / (2**bits - 1), 2**scale_bits - 1
    unit = (scales.max(-1) / largest).astype(np.float16).astype(np.float32)
    below = (-least.min(-1) / largest).astype(np.float16).astype(np.float32)
    whole = _rounded(scales, unit[..., None], largest)
    minimums = _rounded(-least, below[..., None], largest)
    steps = (whole * unit[..., None])[..., None]
    codes = _rounded(groups + (minimums * below[..., None])[..., None], steps, 2**bits - 1)
    return codes.reshape(blocks.shape), whole, minimums, unit, below


def _around_zero(
    blocks: Numbers, size: int, zero: int, most: int, largest: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Codes above -zero, whole scales up to `largest`, and what these are times."""
    groups = blocks.reshape(*blocks.shape[:-1], -1, size)
    scales = np.abs(groups).max(-1) / (most - zero)
    unit = (scales.max(-1) / largest).astype(np.float16).astype(np.float32)
    whole = _rounded(scales, unit[..., None], largest)
    steps = (whole * unit[..., None])[..., None]
    codes = _rounded(groups + zero * steps, steps, most)
    return codes.reshape(blocks.shape), whole, unit


def _spread(codes: Numbers, width: int, run: int) -> Numbers:
    """Runs of `run` bytes: 8 / width runs of codes in each, the first in the lowest bits."""
    parts = codes.reshape(*codes.shape[:-1], -1, 8 // width, run)
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    packed: Numbers = np.bitwise_or.reduce(parts << shifts, axis=-2)
    return packed.reshape(*codes.shape[:-1], -1)


def _six_bit_pairs(scales: Numbers, minimums: Numbers) -> Numbers:
    first = scales[..., :4] | (scales[..., 4:] >> 4) << 6
    second = minimums[..., :4] | (minimums[..., 4:] >> 4) << 6
    both = scales[..., 4:] & 15 | (minimums[..., 4:] & 15) << 4
    return np.concatenate((first, second, both), axis=-1)


def _q2_k(blocks: Numbers) -> tuple[Numbers, ...]:
    codes, scales, minimums, unit, below = _from_least(blocks, 16, 2, 4)
    return scales | minimums << 4, _spread(codes, 2, 32), _half(unit), _half(below)


def _q3_k(blocks: Numbers) -> tuple[Numbers, ...]:
    codes, whole, unit = _around_zero(blocks, 16, 4, 7, 31)
    scales = whole + 32
    packed = np.concatenate((_spread(scales & 15, 4, 8), _spread(scales >> 4, 2, 4)), axis=-1)
    return _spread(codes >> 2, 1, 32), _spread(codes & 3, 2, 32), packed, _half(unit)


def _q4_k(blocks: Numbers) -> tuple[Numbers, ...]:
    codes, scales, minimums, unit, below = _from_least(blocks, 32, 4, 6)
    return _half(unit), _half(below), _six_bit_pairs(scales, minimums), _spread(codes, 4, 32)


def _q5_k(blocks: Numbers) -> tuple[Numbers, ...]:
    codes, scales, minimums, unit, below = _from_least(blocks, 32, 5, 6)
    pairs = _six_bit_pairs(scales, minimums)
    fifth = _spread(codes >> 4, 1, 32)
    return _half(unit), _half(below), pairs, fifth, _spread(codes & 15, 4, 32)


def _q6_k(blocks: Numbers) -> tuple[Numbers, ...]:
    codes, whole, unit = _around_zero(blocks, 16, 32, 63, 127)
    return _spread(codes & 15, 4, 64), _spread(codes >> 4, 2, 32), whole, _half(unit)


def _nearest(numbers: Numbers) -> Numbers:
    table = np.array(gguf.quants.IQ4_NL.kvalues, np.float32)
    borders = (table[1:] + table[:-1]) / 2
    return np.searchsorted(borders, numbers).astype(np.uint8)


def _iq4_nl(blocks: Numbers) -> tuple[Numbers, ...]:
    groups = blocks.reshape(*blocks.shape[:-1], -1, 32)
    unit = (np.abs(groups).max(-1) / 127).astype(np.float16).astype(np.float32)
    safe = np.where(unit == 0, 1, unit)[..., None]
    codes = _spread(_nearest(groups / safe), 4, 16)
    return (np.concatenate((_half(unit), codes), axis=-1).reshape(*blocks.shape[:-1], -1),)


def _iq4_xs(blocks: Numbers) -> tuple[Numbers, ...]:
    _, whole, unit = _around_zero(blocks, 32, 0, 113, 31)
    groups = blocks.reshape(*blocks.shape[:-1], -1, 32)
    steps = whole * unit[..., None]
    codes = _nearest(groups / np.where(steps == 0, 1, steps)[..., None])
    scales = whole + 32
    upper = np.bitwise_or.reduce(
        (scales >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16), axis=-1
    )
    lower = scales[..., ::2] & 15 | (scales[..., 1::2] & 15) << 4
    packed = _spread(codes, 4, 16).reshape(*blocks.shape[:-1], -1)
    return _half(unit), np.ascontiguousarray(upper)[..., None].view(np.uint8), lower, packed


WRITERS: dict[str, Callable[[Numbers], tuple[Numbers, ...]]] = {
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip

"""Blocks of GGUF files: packed matrices hold what the gguf package reads from the same bytes."""

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from trivet.backends.llm.weights.gguf_blocks import grouped

PACKED = (
    Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q2_K, Kind.Q3_K, Kind.Q4_K,
    Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS, Kind.MXFP4,
)  # fmt: skip
HALVES = {
    Kind.Q4_0: [0], Kind.Q4_1: [0, 2], Kind.Q5_0: [0], Kind.Q5_1: [0, 2], Kind.Q8_0: [0],
    Kind.Q2_K: [80, 82], Kind.Q3_K: [108], Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [208],
    Kind.IQ4_NL: [0], Kind.IQ4_XS: [0], Kind.MXFP4: [],
}  # fmt: skip
"""Where blocks have their scales."""
ROWS, BLOCKS = 5, 3


def random_blocks(kind: Kind) -> np.ndarray:
    """Any bytes at all, with scales of the size that weights have."""
    chance = np.random.default_rng(int(kind))
    size = GGML_QUANT_SIZES[kind][1]
    blocks = chance.integers(0, 256, (ROWS, BLOCKS, size), dtype=np.uint8)
    for start in HALVES[kind]:
        scales = chance.uniform(0.001, 0.02, (ROWS, BLOCKS, 1)).astype(np.float16)
        blocks[..., start : start + 2] = scales.view(np.uint8)
    if kind is Kind.MXFP4:
        blocks[..., 0] = chance.integers(100, 140, (ROWS, BLOCKS))
        blocks[0, 0, 0] = 0
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_any_blocks_give_what_the_gguf_package_gives(kind: Kind) -> None:
    blocks = random_blocks(kind)
    matrix = grouped(kind, torch.from_numpy(blocks), torch.float32)
    assert matrix is not None
    expected = torch.from_numpy(dequantize(blocks, kind))
    # Scales of K-quants are products, rounded to float16.
    error = (matrix.expanded() - expected).abs().max() / expected.abs().max()
    assert error <= (1e-3 if "_K" in kind.name or kind is Kind.IQ4_XS else 0)


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_they_take_little_more_than_in_the_file(kind: Kind) -> None:
    blocks = random_blocks(kind)
    matrix = grouped(kind, torch.from_numpy(blocks), torch.bfloat16)
    assert matrix is not None
    # Of Q2_K, whose scales of 4 bits become 16.
    assert matrix.nbytes <= blocks.nbytes * (1.53 if kind is Kind.Q2_K else 1.17)


def test_other_types_do_not_stay_packed() -> None:
    assert grouped(Kind.IQ2_XS, torch.zeros(1, 74, dtype=torch.uint8), torch.float32) is None

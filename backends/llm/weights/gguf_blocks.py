"""Blocks of GGUF files as grouped matrices. What lies in a block says ggml-common.h; how numbers
follow from it, the gguf package's quants.py."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from trivet.backends.llm.matrices.bits import pack_codes
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.grouped import Grouped

TWICE_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12)
E2M1 = Code(4, table=tuple(map(float, (*TWICE_E2M1, *(-value for value in TWICE_E2M1)))))
"""Twice the numbers of MXFP4 (OCP Microscaling Formats, 2023, 5.3.3), which are whole; scales are
halved."""
_IQ4 = Code(
    4,
    table=tuple(
        map(float, (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
    ),
)


class _Groups(NamedTuple):
    """Of all blocks: codes, or the plane in which 4 bits lie as in `bits.py`; [outputs, ..]."""

    scales: Tensor
    minimums: Tensor | None = None
    codes: Tensor | None = None
    plane: Tensor | None = None


Read = Callable[[Tensor], _Groups]
"""Of uint8 [outputs, blocks, bytes of a block]."""


def grouped(kind: int, rows: Tensor, dtype: torch.dtype) -> Grouped | None:
    """Of a GGMLQuantizationType: `rows` are its bytes, uint8 [outputs, bytes of a row]. None where
    the type does not stay packed."""
    if kind not in KINDS:
        return None
    code, block_bytes, read = KINDS[kind]
    groups = read(torch.unflatten(rows, 1, (-1, block_bytes)))
    if groups.plane is not None:
        plane = groups.plane.flatten(1).contiguous()
        return Grouped(plane, None, groups.scales, groups.minimums, code, dtype)
    assert groups.codes is not None
    low, high = pack_codes(groups.codes.flatten(1), code.bits)
    return Grouped(low, high, groups.scales, groups.minimums, code, dtype)


def e8m0_halves(exponents: Tensor) -> Tensor:
    """Half of what uint8 exponents stand for (OCP Microscaling Formats, 5.4.1), bfloat16."""
    wide = exponents.int()
    bits = torch.where(wide < 2, 0x00200000 << wide.clamp(max=1), (wide - 1).clamp(0) << 23)
    return bits.view(torch.float32).bfloat16()


def _half(blocks: Tensor, start: int) -> Tensor:
    """float16 [outputs, blocks] from each block's byte `start` on."""
    return blocks[..., start : start + 2].contiguous().view(torch.float16).squeeze(-1)


def _q4_0(blocks: Tensor) -> _Groups:
    return _Groups(_half(blocks, 0), plane=blocks[..., 2:])


def _q4_1(blocks: Tensor) -> _Groups:
    return _Groups(_half(blocks, 0), _half(blocks, 2), plane=blocks[..., 4:])


def _q5_0(blocks: Tensor) -> _Groups:
    return _Groups(_half(blocks, 0), codes=_five_bits(blocks[..., 2:6], blocks[..., 6:]))


def _q5_1(blocks: Tensor) -> _Groups:
    codes = _five_bits(blocks[..., 4:8], blocks[..., 8:])
    return _Groups(_half(blocks, 0), _half(blocks, 2), codes)


def _five_bits(fifth: Tensor, lower: Tensor) -> Tensor:
    """`fifth`: a bit of each of 32, in order; `lower`: 4 bits of each, 16 below 16."""
    return _spread(lower, 4, 16) | (_bits(fifth) << 4)


def _bits(packed: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> shifts) & 1).flatten(-2)


def _spread(packed: Tensor, width: int, run: int) -> Tensor:
    """Runs of `run` bytes of 8 / width codes each: those of the lowest bits first."""
    runs, mask = torch.unflatten(packed, -1, (-1, run)), (1 << width) - 1
    parts = [(runs >> shift) & mask for shift in range(0, 8, width)]
    return torch.stack(parts, dim=-2).flatten(-3)


def _q8_0(blocks: Tensor) -> _Groups:
    return _Groups(_half(blocks, 0), codes=blocks[..., 2:] ^ 128)


def _q2_k(blocks: Tensor) -> _Groups:
    scales, minimums = blocks[..., :16] & 15, blocks[..., :16] >> 4
    codes = _spread(blocks[..., 16:80], 2, 32)
    return _Groups(_times(blocks, 80, scales), -_times(blocks, 82, minimums), codes)


def _times(blocks: Tensor, start: int, factors: Tensor) -> Tensor:
    """A block's scale, at byte `start`, times its groups' factors: float16 [outputs, groups]."""
    return (_half(blocks, start).float().unsqueeze(-1) * factors.float()).half().flatten(1)


def _q3_k(blocks: Tensor) -> _Groups:
    # The third bit of number i is bit i // 32 of byte i % 32.
    third = _spread(blocks[..., :32], 1, 32)
    codes = _spread(blocks[..., 32:96], 2, 32) | (third << 2)
    lower, upper = _spread(blocks[..., 96:104], 4, 8), _spread(blocks[..., 104:108], 2, 4)
    scales = (lower | (upper << 4)).view(torch.int8) - 32
    return _Groups(_times(blocks, 108, scales), codes=codes)


def _six_bit_pairs(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minimums of the 8 groups of a block, which share 12 bytes."""
    first, second, both = torch.unflatten(packed, -1, (3, 4)).unbind(-2)
    scales = torch.cat((first & 63, (both & 15) | ((first >> 2) & 48)), dim=-1)
    minimums = torch.cat((second & 63, (both >> 4) | ((second >> 2) & 48)), dim=-1)
    return scales, minimums


def _q4_k(blocks: Tensor) -> _Groups:
    scales, minimums = _six_bit_pairs(blocks[..., 4:16])
    codes = _spread(blocks[..., 16:], 4, 32)
    return _Groups(_times(blocks, 0, scales), -_times(blocks, 2, minimums), codes)


def _q5_k(blocks: Tensor) -> _Groups:
    scales, minimums = _six_bit_pairs(blocks[..., 4:16])
    codes = _spread(blocks[..., 48:], 4, 32) | (_spread(blocks[..., 16:48], 1, 32) << 4)
    return _Groups(_times(blocks, 0, scales), -_times(blocks, 2, minimums), codes)


def _q6_k(blocks: Tensor) -> _Groups:
    codes = _spread(blocks[..., :128], 4, 64) | (_spread(blocks[..., 128:192], 2, 32) << 4)
    scales = blocks[..., 192:208].view(torch.int8)
    return _Groups(_times(blocks, 208, scales), codes=codes)


def _iq4_nl(blocks: Tensor) -> _Groups:
    return _Groups(_half(blocks, 0), plane=blocks[..., 2:])


def _iq4_xs(blocks: Tensor) -> _Groups:
    lower = torch.stack((blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4), dim=-1).flatten(-2)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)
    upper = ((blocks[..., 2:4].unsqueeze(-1) >> shifts) & 3).flatten(-2)
    scales = (lower | (upper << 4)).view(torch.int8) - 32
    return _Groups(_times(blocks, 0, scales), plane=blocks[..., 8:])


def _mxfp4(blocks: Tensor) -> _Groups:
    return _Groups(e8m0_halves(blocks[..., 0]), plane=blocks[..., 1:])


KINDS: Mapping[int, tuple[Code, int, Read]] = {
    2: (Code(4, 8), 18, _q4_0),
    3: (Code(4), 20, _q4_1),
    6: (Code(5, 16), 22, _q5_0),
    7: (Code(5), 24, _q5_1),
    8: (Code(8, 128), 34, _q8_0),
    10: (Code(2), 84, _q2_k),
    11: (Code(3, 4), 110, _q3_k),
    12: (Code(4), 144, _q4_k),
    13: (Code(5), 176, _q5_k),
    14: (Code(6, 32), 210, _q6_k),
    20: (_IQ4, 18, _iq4_nl),
    23: (_IQ4, 136, _iq4_xs),
    39: (E2M1, 17, _mxfp4),
}
"""By ggml's numbers: what codes are worth, the bytes of a block, and how it is read."""

"""Codes of few bits, several to a byte.

A row is cut in chunks of 32 codes. Codes of 4, 2 or 1 bits lie in planes: a chunk of a plane of w
bits is 4 * w bytes, and byte j has in its lowest w bits code j of the chunk, above them code
j + 4 * w, above them code j + 2 * 4 * w, and so on. (With w = 4 that is code j below code j + 16,
as in ggml's Q4_0.) Codes of 5 and 6 bits are a plane of their lower 4 bits and one of the others;
those of 3 bits, of their lower 2 and of the third. Codes of 8 bits are bytes, in order.
"""

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 32
"""Codes that share bytes. Rows of fewer than 8 bits are of whole chunks."""
LOW_BITS = {2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 8: 8}
"""Of the first plane, by the bits of a code."""


def pack_codes(codes: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """The two planes of uint8 [.., inputs]: uint8 [.., bytes]; the second is None where there is
    nothing above the first."""
    low = LOW_BITS[bits]
    if bits == low:
        return _plane(codes, low), None
    return _plane(codes & ((1 << low) - 1), low), _plane(codes >> low, bits - low)


def unpack_codes(low: Tensor, high: Tensor | None, bits: int) -> Tensor:
    """The other way round: uint8 [.., inputs]."""
    width = LOW_BITS[bits]
    codes = spread(low, width)
    return codes if high is None else codes | (spread(high, bits - width) << width)


def _plane(codes: Tensor, width: int) -> Tensor:
    if width == 8:
        return codes.contiguous()
    parts = torch.unflatten(codes, -1, (-1, 8 // width, 4 * width)).unbind(-2)
    packed = parts[0].clone()
    for place, part in enumerate(parts[1:], start=1):
        packed |= part << (place * width)
    return packed.flatten(-2)


def spread(plane: Tensor, width: int) -> Tensor:
    """One plane's codes: uint8 [.., inputs]."""
    if width == 8:
        return plane
    chunks = torch.unflatten(plane, -1, (-1, 4 * width))
    mask = (1 << width) - 1
    parts = [(chunks >> shift) & mask for shift in range(0, 8, width)]
    return torch.stack(parts, dim=-2).flatten(-3)


def padded_to_chunks(codes: Tensor) -> Tensor:
    """With zeros behind each row."""
    missing = -codes.shape[-1] % CHUNK
    return functional.pad(codes, (0, missing)) if missing else codes

"""Matrices in the order in which the compiled step reads them."""

from ctypes import c_int64, c_void_p

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.matrices.bits import spread
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.native.library import load_native

PANEL = 32
"""Columns that one block of packed weights makes."""
HALF = PANEL // 2
_NIBBLE = 4
_NO_ROW = -1


def pack(weight: Tensor) -> Tensor:
    """[N, K], both multiples of 32, as the products of products.h read it, from first to last byte.

    [N / 32, K / 32] blocks of two tiles of 16 columns each; a tile has 16 rows of 16 pairs, each
    pair two neighbours in K. (Intel's VNNI layout, which AMX and AVX512-BF16 share.)
    """
    columns, depth = weight.shape
    tiles = weight.view(columns // PANEL, 2, HALF, depth // 32, 16, 2)
    return tiles.permute(0, 3, 1, 4, 2, 5).contiguous()


def pack_tiles(weight: Tensor) -> Tensor:
    """[N, K], of 16 and of 32 numbers a multiple, in tiles as `pack` has them, all of a tile's
    columns one after the other: [N / 16, K / 32]."""
    columns, depth = weight.shape
    return (
        weight.view(columns // HALF, HALF, depth // 32, 16, 2).permute(0, 2, 3, 1, 4).contiguous()
    )


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """uint8 [N, K], below 2 ** bits, both multiples of 32: a plane of bits as codes.h reads it.

    [N / 32, K / 32] blocks of 16 vectors, 8 of the first 16 columns and 8 of the others; a vector
    has four neighbours in K of each column. 8 / bits vectors share their bytes, the first lowest.
    """
    columns, depth = codes.shape
    # Four neighbours as one number: they stay together.
    fours = codes.contiguous().view(torch.int32).view(columns // PANEL, 2, HALF, depth // 32, 8)
    vectors = fours.permute(0, 3, 1, 4, 2).contiguous().view(torch.uint8)
    sharing = 8 // bits
    vectors = vectors.view(columns // PANEL, depth // 32, 16 // sharing, sharing, 64)
    packed = vectors[:, :, :, 0].clone()
    for place in range(1, sharing):
        packed |= vectors[:, :, :, place] << (bits * place)
    return packed


def laid_plane(plane: Tensor, bits: int, order: Tensor) -> Tensor:
    """A plane of rows, as `matrices/bits.py` has it, in the order of `pack_codes`. `order`:
    which row each output is."""
    native = load_native()
    if bits != _NIBBLE or isinstance(native, str):
        return pack_codes(padded(spread(plane[order], bits)), bits)
    rows = functional.pad(order, (0, -len(order) % PANEL), value=_NO_ROW)
    depth = plane.shape[1] * 8 // bits
    laid = torch.empty(len(rows) // PANEL, depth // 32, 8, 64, dtype=torch.uint8)
    plane = plane.contiguous()
    native.functions.lay_nibbles(
        *(c_void_p(tensor.data_ptr()) for tensor in (plane, rows)),
        c_int64(len(rows)), c_int64(depth), c_void_p(laid.data_ptr()),
    )  # fmt: skip
    return laid


def interleaved(gate_up: Tensor) -> Tensor:
    """[2 * N, ..], a gate and what it lets through in the same block."""
    parts = gate_up.view(2, -1, HALF, *gate_up.shape[1:])
    return parts.transpose(0, 1).flatten(0, 2)


def padded(rows: Tensor) -> Tensor:
    """To whole blocks, with zeros."""
    missing = -len(rows) % PANEL
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


def numbers_of(matrix: Multiplied) -> Tensor:
    """[outputs, inputs]."""
    return matrix.expanded().to(torch.bfloat16)

"""Triton kernels that multiply codes of 4 and 8 bits as they lie (`bits.py`), and expand them.

A tile is inputs that share a scale, so products of whole numbers are summed first and scaled once
for each output: of 4-bit codes nothing is rounded on the way. A chunk's bytes hold code j below
code j + 16, so a tile of bytes is two matrices, each of which multiplies its own half of the
inputs. Weights are the product's first operand, in registers: outputs are many, rows are few.
"""

import triton
import triton.language as tl

FLOAT_BITS = tl.constexpr(0x4B000000)
FLOAT_BASE = tl.constexpr(8388608.0)
"""2 ** 23: a float32 whose lowest bits are a code is that more than it."""
WHOLE, TABLE, E4M3 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""What a code is worth: itself less a zero; what a table says; an 8-bit float."""
E4M3_SHARE = tl.constexpr(256.0)
"""The bits of an e4m3 number, as those of a float16, are so much less than it: their exponents
begin at 7 and at 15."""


@triton.jit
def _worth(codes, table, zero, KIND: tl.constexpr, dtype: tl.constexpr):
    """What codes are worth, of a product's type."""
    if KIND == WHOLE:
        bits = codes.to(tl.int32) | FLOAT_BITS
        worth = bits.to(tl.float32, bitcast=True) - (FLOAT_BASE + zero)
    elif KIND == TABLE:
        worth = tl.load(table + codes.to(tl.int32))
    else:
        wide = codes.to(tl.int16)
        halves = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        worth = halves.to(tl.float16, bitcast=True)
    return worth.to(dtype)


@triton.jit
def multiply(
    rows, codes, scales, minimums, table, bias, output,
    num_rows, num_outputs, num_inputs, num_tiles, zero,
    BITS: tl.constexpr, KIND: tl.constexpr, HAS_MINIMUMS: tl.constexpr, HAS_BIAS: tl.constexpr,
    GROUP: tl.constexpr, NUM_PARTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUTPUTS: tl.constexpr, BLOCK_INPUTS: tl.constexpr,
):  # fmt: skip
    """output[n, o] = sum over i of rows[n, i] * number[o, i] (+ bias[o]); of NUM_PARTS parts of the
    inputs, [part, n, o] in float32 without a bias. `codes` are [outputs, bytes]; `scales` and
    `minimums` are [groups, outputs]."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    out = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    part = tl.program_id(2)
    is_row, is_out = row < num_rows, out < num_outputs
    num_bytes: tl.constexpr = BLOCK_INPUTS * BITS // 8
    place = tl.arange(0, num_bytes)
    # Where the byte's lower code is multiplied; of 4 bits, the higher one is 16 inputs further.
    low = place if BITS == 8 else place // 16 * 32 + place % 16
    wide_row, wide_out = row.to(tl.int64), out.to(tl.int64)
    row_at = rows + wide_row[None, :] * num_inputs + low[:, None]
    code_at = codes + wide_out[:, None] * (num_inputs * BITS // 8) + place[None, :]
    summed = tl.zeros((BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    first = part * num_tiles
    last = tl.minimum(first + num_tiles, num_inputs // BLOCK_INPUTS)
    for tile in range(first, last):
        packed = tl.load(code_at + tile * num_bytes, mask=is_out[:, None], other=0)
        lower = tl.load(row_at + tile * BLOCK_INPUTS, mask=is_row[None, :], other=0.0)
        dtype: tl.constexpr = lower.dtype
        if BITS == 8:
            product = tl.dot(
                _worth(packed, table, zero, KIND, dtype), lower, input_precision="ieee"
            )
        else:
            upper = tl.load(row_at + tile * BLOCK_INPUTS + 16, mask=is_row[None, :], other=0.0)
            product = tl.dot(
                _worth(packed & 15, table, zero, KIND, dtype), lower, input_precision="ieee"
            )
            product = tl.dot(
                _worth(packed >> 4, table, zero, KIND, dtype), upper, product,
                input_precision="ieee",
            )  # fmt: skip
        group = tile * BLOCK_INPUTS // GROUP
        scale = tl.load(scales + group * num_outputs + out, mask=is_out, other=0.0).to(tl.float32)
        if KIND == E4M3:
            scale *= E4M3_SHARE
        summed += product * scale[:, None]
        if HAS_MINIMUMS:
            all_inputs = tl.sum(lower.to(tl.float32), 0)
            if BITS == 4:
                all_inputs += tl.sum(upper.to(tl.float32), 0)
            least = tl.load(minimums + group * num_outputs + out, mask=is_out, other=0.0)
            summed += least.to(tl.float32)[:, None] * all_inputs[None, :]
    if HAS_BIAS and NUM_PARTS == 1:
        summed += tl.load(bias + out, mask=is_out, other=0.0).to(tl.float32)[:, None]
    target = output + (part.to(tl.int64) * num_rows + wide_row[None, :]) * num_outputs
    target += wide_out[:, None]
    tl.store(target, summed.to(output.dtype.element_ty), mask=is_out[:, None] & is_row[None, :])


@triton.jit
def add_parts(
    parts, bias, output, num_numbers, num_outputs,
    NUM_PARTS: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """output = the sum of parts [part, numbers] (+ bias of each row)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_there = place < num_numbers
    summed = tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(NUM_PARTS):
        summed += tl.load(parts + part * num_numbers + place, mask=is_there, other=0.0)
    if HAS_BIAS:
        summed += tl.load(bias + place % num_outputs, mask=is_there, other=0.0).to(tl.float32)
    tl.store(output + place, summed.to(output.dtype.element_ty), mask=is_there)


@triton.jit
def expand(
    codes, scales, minimums, table, numbers, num_outputs, num_inputs, zero,
    BITS: tl.constexpr, KIND: tl.constexpr, HAS_MINIMUMS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr, BLOCK_INPUTS: tl.constexpr,
):  # fmt: skip
    """numbers[o, i], all of a matrix, a tile of inputs that share a scale a program."""
    tile = tl.program_id(0)
    out = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_out = out < num_outputs
    num_bytes: tl.constexpr = BLOCK_INPUTS * BITS // 8
    place = tl.arange(0, num_bytes)
    low = place if BITS == 8 else place // 16 * 32 + place % 16
    wide_out = out.to(tl.int64)
    code_at = codes + wide_out[:, None] * (num_inputs * BITS // 8) + place[None, :]
    packed = tl.load(code_at + tile * num_bytes, mask=is_out[:, None], other=0)
    group = tile * BLOCK_INPUTS // GROUP
    scale = tl.load(scales + group * num_outputs + out, mask=is_out, other=0.0).to(tl.float32)
    if KIND == E4M3:
        scale *= E4M3_SHARE
    least = tl.zeros((BLOCK_OUTPUTS,), tl.float32)
    if HAS_MINIMUMS:
        least = tl.load(minimums + group * num_outputs + out, mask=is_out, other=0.0)
        least = least.to(tl.float32)
    target = numbers + wide_out[:, None] * num_inputs + tile * BLOCK_INPUTS + low[None, :]
    kind: tl.constexpr = numbers.dtype.element_ty
    lower = packed if BITS == 8 else packed & 15
    worth = _worth(lower, table, zero, KIND, tl.float32)
    tl.store(target, (worth * scale[:, None] + least[:, None]).to(kind), mask=is_out[:, None])
    if BITS == 4:
        worth = _worth(packed >> 4, table, zero, KIND, tl.float32)
        tl.store(
            target + 16, (worth * scale[:, None] + least[:, None]).to(kind), mask=is_out[:, None]
        )

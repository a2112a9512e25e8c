"""Triton kernels of a decoder layer between its products: norms, rotation, activation.

Each is one pass over its rows; sums are float32 whatever the weights are. Where the product behind
a kernel is of 8-bit numbers, the kernel writes them itself, scaled so that a row's largest number
becomes the largest of the type.
"""

import triton
import triton.language as tl

FP8_MAX = tl.constexpr(448.0)
"""Of float8_e4m3fn."""
SMALLEST = tl.constexpr(1e-12)
"""A row of zeros is scaled by something."""


@triton.jit
def add_norm(
    states, residual, weight, output, scales, eps, num_columns,
    ADDS: tl.constexpr, QUANTISES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """residual += states; output = the norm of residual, a row a program. Without ADDS, of states,
    which become the residual."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < num_columns
    place = row * num_columns + columns
    summed = tl.load(states + place, mask=is_column, other=0.0).to(tl.float32)
    if ADDS:
        summed += tl.load(residual + place, mask=is_column, other=0.0).to(tl.float32)
    rounded = summed.to(residual.dtype.element_ty)
    tl.store(residual + place, rounded, mask=is_column)
    summed = rounded.to(tl.float32)
    normed = summed * tl.rsqrt(tl.sum(summed * summed, 0) / num_columns + eps)
    normed *= tl.load(weight + columns, mask=is_column, other=0.0).to(tl.float32)
    _write_row(output, scales, row, place, is_column, normed, QUANTISES)


@triton.jit
def silu_product(
    gate_up, output, scales, num_columns, QUANTISES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """output = silu(gate) * up, of rows [gate, up], a row a program."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < num_columns
    place = row * 2 * num_columns + columns
    gate = tl.load(gate_up + place, mask=is_column, other=0.0).to(tl.float32)
    up = tl.load(gate_up + num_columns + place, mask=is_column, other=0.0).to(tl.float32)
    product = gate / (1.0 + tl.exp(-gate)) * up
    place = row * num_columns + columns
    _write_row(output, scales, row, place, is_column, product, QUANTISES)


@triton.jit
def quantise_rows(states, output, scales, num_columns, BLOCK: tl.constexpr):
    """What has no kernel of ours before its product."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < num_columns
    place = row * num_columns + columns
    values = tl.load(states + place, mask=is_column, other=0.0).to(tl.float32)
    _write_row(output, scales, row, place, is_column, values, True)


@triton.jit
def _write_row(output, scales, row, place, is_column, values, QUANTISES: tl.constexpr):
    if QUANTISES:
        scale = tl.maximum(tl.max(tl.abs(values), 0), SMALLEST) / FP8_MAX
        tl.store(scales + row, scale)
        values = tl.clamp(values / scale, -FP8_MAX, FP8_MAX)
    tl.store(output + place, values.to(output.dtype.element_ty), mask=is_column)


@triton.jit
def rotate_and_write(
    qkv, cosines, sines, positions, slot_mapping, keys, values, query_norm, key_norm,
    token_stride, slot_stride, head_stride, eps, key_factor, value_factor,
    NUM_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr,
    NORMS: tl.constexpr, IS_8BIT: tl.constexpr,
):  # fmt: skip
    """Queries are normed and rotated where they lie; keys go to the cache so, values as they are,
    both times their factor. One program a token and head; negative slots are not written."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half = tl.arange(0, HEAD_SIZE // 2)
    place = qkv + token * token_stride + head * HEAD_SIZE
    slot = tl.load(slot_mapping + token)
    first = tl.load(place + half).to(tl.float32)
    second = tl.load(place + HEAD_SIZE // 2 + half).to(tl.float32)
    if head >= NUM_HEADS + NUM_KV_HEADS:
        if slot >= 0:
            target = values + slot * slot_stride
            target += (head - NUM_HEADS - NUM_KV_HEADS) * head_stride
            _write_head(target, half, first, second, value_factor, HEAD_SIZE, IS_8BIT)
        return
    if NORMS:
        power = (tl.sum(first * first, 0) + tl.sum(second * second, 0)) / HEAD_SIZE
        level = tl.rsqrt(power + eps)
        weight = query_norm if head < NUM_HEADS else key_norm
        first = first * level * tl.load(weight + half).to(tl.float32)
        second = second * level * tl.load(weight + HEAD_SIZE // 2 + half).to(tl.float32)
    position = tl.load(positions + token) * (HEAD_SIZE // 2)
    cosine, sine = tl.load(cosines + position + half), tl.load(sines + position + half)
    rotated = first * cosine - second * sine
    second = second * cosine + first * sine
    if head < NUM_HEADS:
        tl.store(place + half, rotated.to(qkv.dtype.element_ty))
        tl.store(place + HEAD_SIZE // 2 + half, second.to(qkv.dtype.element_ty))
    elif slot >= 0:
        target = keys + slot * slot_stride + (head - NUM_HEADS) * head_stride
        _write_head(target, half, rotated, second, key_factor, HEAD_SIZE, IS_8BIT)


@triton.jit
def _write_head(
    target, half, first, second, factor, HEAD_SIZE: tl.constexpr, IS_8BIT: tl.constexpr,
):  # fmt: skip
    if IS_8BIT:
        first = tl.clamp(first * factor, -FP8_MAX, FP8_MAX)
        second = tl.clamp(second * factor, -FP8_MAX, FP8_MAX)
    tl.store(target + half, first.to(target.dtype.element_ty))
    tl.store(target + HEAD_SIZE // 2 + half, second.to(target.dtype.element_ty))

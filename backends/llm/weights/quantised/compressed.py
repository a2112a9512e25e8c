"""compressed-tensors' files: each matrix's tensors tell in which of its formats it is."""

import torch

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.quantisation import WORD_BITS, CompressedFiles
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.weights.quantised.eight_bits import forget_inputs, read_fp8, read_int8
from trivet.backends.llm.weights.quantised.gptq import group_order
from trivet.backends.llm.weights.quantised.source import (
    Source,
    check_groups,
    check_scales,
    check_shape,
    unpacked_words,
)


def read_compressed(source: Source, files: CompressedFiles) -> None:
    """All matrices of a folder. Raises LoadFailed."""
    for stem in source.stems(".weight_packed"):
        source.put(stem, _packed(source, stem, files))
        forget_inputs(source, stem)
    for stem in source.stems(".weight"):
        data = source.get(f"{stem}.weight")
        if data is not None and data.dtype == torch.int8:
            read_int8(source, stem)
    read_fp8(source, files.blocks)


def _packed(source: Source, stem: str, files: CompressedFiles) -> Grouped:
    name = f"{stem}.weight_packed"
    words, shape = source.need_words(name, name), source.need(f"{stem}.weight_shape", name)
    check_shape(f"{stem}.weight_shape", shape, (2,), f"'{name}'")
    outputs, inputs = shape.tolist()
    bits = _bits(name, tuple(words.shape), (outputs, inputs), files)
    scales = check_scales(f"{stem}.weight_scale", source.need(f"{stem}.weight_scale", name))
    num_groups = scales.numel() // outputs
    check_groups(name, inputs, num_groups)
    why = f"'{name}' of {bits} bits and {num_groups} groups"
    check_shape(f"{stem}.weight_scale", scales, (outputs, num_groups), why)
    codes = unpacked_words(words, bits, 1)[:, :inputs]
    if (groups_of := source.take(f"{stem}.weight_g_idx")) is not None:
        check_shape(f"{stem}.weight_g_idx", groups_of, (inputs,), why)
    order = group_order(f"{stem}.weight_g_idx", groups_of, num_groups)
    codes = codes if order is None else codes[:, order]
    minimums, zeros = None, source.take(f"{stem}.weight_zero_point")
    if zeros is not None:
        # Packed along the outputs, unlike the weights.
        rows = -(-outputs * bits // WORD_BITS)
        check_shape(f"{stem}.weight_zero_point", zeros, (rows, num_groups), why)
        zero = unpacked_words(zeros, bits, 0)[:outputs].int()
        minimums = (((1 << (bits - 1)) - zero) * scales.float()).to(scales.dtype)
    code = Code(bits, 1 << (bits - 1))
    return Grouped.of_codes(codes.contiguous(), scales, code, source.dtype, minimums, order)


def _bits(name: str, words: tuple[int, ...], shape: tuple[int, int], files: CompressedFiles) -> int:
    """Of a code, where a folder has several. Raises LoadFailed."""
    outputs, inputs = shape
    for bits in files.bits:
        if words == (outputs, -(-inputs * bits // WORD_BITS)):
            return bits
    known = " or ".join(map(str, sorted(files.bits)))
    raise LoadFailed(
        f"weight '{name}' is of shape {list(words)}, which is no matrix {list(shape)} of {known} "
        "bits (config.json, quantization_config.config_groups, num_bits)"
    )

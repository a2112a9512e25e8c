"""GPTQ's and AWQ's files: words of 32 bits, a scale and a zero for each group of inputs."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.quantisation import WORD_BITS, AwqFiles, GptqFiles
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.weights.quantised.source import (
    Source,
    check_groups,
    check_scales,
    check_shape,
    unpacked_words,
)

_AWQ_BITS = 4
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""At which place of a word AutoAWQ puts each of 8 columns."""


def read_gptq(source: Source, files: GptqFiles) -> None:
    """All matrices of a folder. Raises LoadFailed."""
    for stem in source.stems(".qweight"):
        source.put(stem, _gptq(source, stem, files))


def _gptq(source: Source, stem: str, files: GptqFiles) -> Grouped:
    name = f"{stem}.qweight"
    words, zeros = source.need_words(name, name), source.need_words(f"{stem}.qzeros", name)
    scales = check_scales(f"{stem}.scales", source.need_matrix(f"{stem}.scales", name))
    groups_of = source.take(f"{stem}.g_idx")
    outputs, num_groups = words.shape[1], len(scales)
    # Words tell the bits, where the inputs are known.
    bits, inputs = files.bits, len(words) * WORD_BITS // files.bits
    if groups_of is not None and len(groups_of) != inputs:
        inputs, bits = len(groups_of), len(words) * WORD_BITS // max(len(groups_of), 1)
        if not files.may_differ or bits not in (2, 4, 8):
            raise LoadFailed(
                f"weight '{name}' has {len(words)} words for the {inputs} inputs of "
                f"'{stem}.g_idx'; {files.bits} bits (config.json, quantization_config.bits) need "
                f"{inputs * files.bits // WORD_BITS}"
            )
    size = 0 if files.may_differ else (files.group_size or inputs)
    check_groups(name, inputs, num_groups, size)
    why = f"'{name}' of {bits} bits and {num_groups} groups"
    check_shape(f"{stem}.scales", scales, (num_groups, outputs), why)
    check_shape(f"{stem}.qzeros", zeros, (num_groups, outputs * bits // WORD_BITS), why)
    codes = unpacked_words(words, bits, 0)
    order = group_order(f"{stem}.g_idx", groups_of, num_groups)
    if order is not None:
        codes = codes[order]
    codes_of_zeros = unpacked_words(zeros, bits, 1).int() + files.zero_offset
    return _with_zeros(source, codes.t(), scales.t(), codes_of_zeros.t(), bits, order)


def group_order(name: str, groups_of: Tensor | None, num_groups: int) -> Tensor | None:
    """Which inputs belong together; None where neighbours do. Raises LoadFailed."""
    if groups_of is None:
        return None
    inputs = len(groups_of)
    size, groups_of = inputs // num_groups, groups_of.long()
    if torch.equal(groups_of, torch.arange(inputs) // size):
        return None
    counts = groups_of.clamp(0, num_groups).bincount(minlength=num_groups)
    if groups_of.min() < 0 or len(counts) > num_groups or (counts != size).any():
        raise LoadFailed(
            f"weight '{name}' shares {inputs} inputs out to groups of {counts.min()} to "
            f"{counts.max()}; each of the {num_groups} that have scales must get {size}"
        )
    return groups_of.argsort(stable=True)


def _with_zeros(
    source: Source,
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    bits: int,
    order: Tensor | None = None,
) -> Grouped:
    """[outputs, inputs] and [outputs, groups] that lie in any order."""
    scales, middle = scales.contiguous(), 1 << (bits - 1)
    minimums = None
    if (zeros != middle).any():
        minimums = ((middle - zeros) * scales.float()).to(scales.dtype).contiguous()
    code = Code(bits, middle)
    return Grouped.of_codes(codes.contiguous(), scales, code, source.dtype, minimums, order)


def read_awq(source: Source, files: AwqFiles) -> None:
    """All matrices of a folder. Raises LoadFailed."""
    for stem in source.stems(".qweight"):
        source.put(stem, _awq(source, stem, files))


def _awq(source: Source, stem: str, files: AwqFiles) -> Grouped:
    name = f"{stem}.qweight"
    words, zeros = source.need_words(name, name), source.take(f"{stem}.qzeros")
    scales = check_scales(f"{stem}.scales", source.need_matrix(f"{stem}.scales", name))
    inputs, outputs = len(words), words.shape[1] * WORD_BITS // _AWQ_BITS
    check_groups(name, inputs, len(scales), files.group_size or inputs)
    why = f"'{name}' of 4 bits and {len(scales)} groups"
    check_shape(f"{stem}.scales", scales, (len(scales), outputs), why)
    middle = torch.full((len(scales), outputs), 1 << (_AWQ_BITS - 1))
    if zeros is not None:
        check_shape(f"{stem}.qzeros", zeros, (len(scales), words.shape[1]), why)
        middle = _in_order(zeros).int()
    return _with_zeros(source, _in_order(words).t(), scales.t(), middle.t(), _AWQ_BITS)


def _in_order(words: Tensor) -> Tensor:
    codes = unpacked_words(words, _AWQ_BITS, 1)
    return torch.unflatten(codes, 1, (-1, len(_AWQ_ORDER)))[..., list(_AWQ_ORDER)].flatten(1)

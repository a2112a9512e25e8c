"""Which reader is whose."""

from typing import assert_never

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.quantisation import (
    AwqFiles,
    BitsandbytesFiles,
    CompressedFiles,
    Fp8Files,
    GptqFiles,
    Mxfp4Files,
    Quantised,
)
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.weights.quantised.bitsandbytes import read_bitsandbytes
from trivet.backends.llm.weights.quantised.compressed import read_compressed
from trivet.backends.llm.weights.quantised.eight_bits import read_fp8
from trivet.backends.llm.weights.quantised.gptq import read_awq, read_gptq
from trivet.backends.llm.weights.quantised.source import Source


def pack_quantised(weights: dict[str, Stored], files: Quantised, dtype: torch.dtype) -> None:
    """Puts matrices in the place of the tensors that make them up. Raises LoadFailed."""
    source = Source(weights, dtype)
    match files:
        case Fp8Files():
            read_fp8(source, files.blocks)
            return
        case GptqFiles():
            read_gptq(source, files)
        case AwqFiles():
            read_awq(source, files)
        case CompressedFiles():
            read_compressed(source, files)
        case BitsandbytesFiles():
            read_bitsandbytes(source)
        case Mxfp4Files():
            return  # experts are stacked, as plain ones may be, too
        case _:
            assert_never(files)
    if all(isinstance(each, Tensor) for each in weights.values()):
        raise LoadFailed(
            f"none of the {len(weights)} weights is packed as config.json says (quantization_config"
            f", quant_method '{files.method}'): the files are of another model, or the config is"
        )

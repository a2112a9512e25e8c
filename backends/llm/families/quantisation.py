"""Which quantised Hugging Face files can be read, by config.json's `quantization_config`."""

from collections.abc import Mapping
from typing import Any

from trivet.backends.api import LoadFailed


def refuse_quantisations(given: Mapping[str, Any]) -> None:
    """Which quantised files can be read: of 8 bits, e4m3 with a scale for a matrix, for each of its
    rows or for each of its blocks, and experts that are stacked in MXFP4."""
    if given.get("quant_method") == "mxfp4":
        return
    method = given.get("quant_method") or "fp8"
    kind = given.get("format") or "float-quantized"
    if method not in ("fp8", "compressed-tensors"):
        bits = f" of {given['bits']} bits" if isinstance(given.get("bits"), int) else ""
        raise LoadFailed(
            f"the weights are quantised by '{str(method)[:64]}'{bits} (config.json, "
            "quantization_config.quant_method), which cannot be read; take the model's unquantised "
            "weights, or ones in fp8 or a GGUF file"
        )
    if method not in ("fp8", "compressed-tensors") or kind != "float-quantized":
        raise LoadFailed(
            f"config.json has quant_method '{method}' of format '{kind}'; 'fp8', and "
            "'compressed-tensors' of format 'float-quantized', are supported"
        )
    scale_blocks(given)


def scale_blocks(given: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many rows and columns of an 8-bit matrix share a scale, by config.json's
    `quantization_config`; None where a whole matrix or each row has one. Raises LoadFailed."""
    size = given.get("weight_block_size")
    for group in (given.get("config_groups") or {}).values():
        size = size or (group.get("weights") or {}).get("block_structure")
    if not size:
        return None
    if (
        isinstance(size, list)
        and len(size) == len(("rows", "columns"))
        and all(isinstance(part, int) and part > 0 for part in size)
    ):
        return size[0], size[1]
    raise LoadFailed(
        f"config.json has weight_block_size {size}; it must be two whole numbers above 0, the rows "
        "and columns that share a scale, such as [128, 128]"
    )

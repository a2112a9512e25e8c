"""What config.json's `quantization_config` says of the weights, of the formats that can be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trivet.backends.api import LoadFailed


@dataclass(frozen=True, slots=True)
class Fp8Files:
    """Numbers of 8 bits, e4m3, with a scale for a matrix, for each row or for each block."""

    blocks: tuple[int, int] | None = None
    """How many rows and columns share a scale; None: a whole matrix or each row has one."""


@dataclass(frozen=True, slots=True)
class GptqFiles:
    """Words of 32 bits along the inputs, from AutoGPTQ and GPTQModel."""

    method: ClassVar[str] = "gptq"
    bits: int
    group_size: int
    """Inputs that share a scale; 0: all of them."""
    zero_offset: int
    """What is to be added to zeros: files of version 1 have one less than they mean."""
    may_differ: bool = False
    """Some matrices may have other bits and groups (`dynamic`)."""


@dataclass(frozen=True, slots=True)
class AwqFiles:
    """Words of 32 bits along the outputs, in the order of AutoAWQ's kernels for many rows."""

    method: ClassVar[str] = "awq"
    group_size: int


@dataclass(frozen=True, slots=True)
class CompressedFiles:
    """What compressed-tensors writes; each matrix's tensors say in which of its formats it is."""

    method: ClassVar[str] = "compressed-tensors"
    bits: frozenset[int]
    """Of whole numbers, where several make up a word."""
    blocks: tuple[int, int] | None = None
    """See Fp8Files."""


@dataclass(frozen=True, slots=True)
class BitsandbytesFiles:
    """What bitsandbytes writes: 4 bits by a table, or 8."""

    method: ClassVar[str] = "bitsandbytes"


@dataclass(frozen=True, slots=True)
class Mxfp4Files:
    """Stacked experts of gpt-oss; other weights are plain."""


Quantised = Fp8Files | GptqFiles | AwqFiles | CompressedFiles | BitsandbytesFiles | Mxfp4Files
Given = Mapping[str, Any]
WORD_BITS = 32


def quantisation(given: Given) -> Quantised | None:
    """Of a `quantization_config`; None where it is empty. Raises LoadFailed for what cannot be
    read."""
    if not given:
        return None
    method = str(given.get("quant_method") or "fp8")[:64]
    if method not in METHODS:
        known = ", ".join(sorted(METHODS))
        raise LoadFailed(
            f"the weights are quantised by '{method}' (config.json, "
            f"quantization_config.quant_method), which cannot be read; {known} are, and GGUF files"
        )
    return METHODS[method](given)


def _fp8(given: Given) -> Fp8Files:
    return Fp8Files(_block(given.get("weight_block_size")))


def _gptq(given: Given) -> GptqFiles:
    version = str(given.get("checkpoint_format") or given.get("format") or "gptq")[:64]
    if version not in _GPTQ_ZEROS:
        raise _cannot("checkpoint_format", version, ", ".join(_GPTQ_ZEROS))
    return GptqFiles(
        _one_of(given, "bits", (2, 4, 8)),
        _group_size(given),
        _GPTQ_ZEROS[version],
        may_differ=bool(given.get("dynamic")),
    )


_GPTQ_ZEROS = {"gptq": 1, "gptq_v2": 0}


def _awq(given: Given) -> AwqFiles:
    version = str(given.get("version") or "gemm")[:64].lower()
    if version != "gemm":
        raise _cannot("version", version, "gemm")
    _one_of(given, "bits", (4,))
    return AwqFiles(_group_size(given))


def _compressed(given: Given) -> CompressedFiles:
    named = given.get("config_groups") or {}
    groups: list[Any] = list(named.values()) if isinstance(named, Mapping) else [None]
    if not all(isinstance(each, Mapping) for each in groups):
        raise _cannot("config_groups", named, "an object of objects")
    kinds = {str(each.get("format") or given.get("format"))[:64] for each in groups}
    for kind in kinds or {str(given.get("format"))[:64]}:
        if kind not in _COMPRESSED:
            raise _cannot("format", kind, ", ".join(_COMPRESSED))
    weights = [each.get("weights") or {} for each in groups]
    sizes = [each["block_structure"] for each in weights if each.get("block_structure")]
    bits = [each.get("num_bits", 8) for each in weights]
    for each in bits:
        if type(each) is not int or each not in (2, 4, 8):
            raise _cannot("num_bits", each, "2, 4 and 8")
    return CompressedFiles(frozenset(bits), _block(sizes[0]) if sizes else None)


_COMPRESSED = (
    "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense",
    "mixed-precision",
)  # fmt: skip


def _bitsandbytes(given: Given) -> BitsandbytesFiles:
    kind = given.get("bnb_4bit_quant_type", "nf4") if given.get("load_in_4bit") else "nf4"
    if kind not in ("nf4", "fp4"):
        raise _cannot("bnb_4bit_quant_type", kind, "nf4 and fp4")
    return BitsandbytesFiles()


METHODS: Mapping[str, Callable[[Given], Quantised]] = {
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "gptq": _gptq,
    "mxfp4": lambda given: Mxfp4Files(),  # noqa: ARG005  # there is but one
}


def _group_size(given: Given) -> int:
    """0 for all inputs."""
    size = given.get("group_size", 128)
    if not isinstance(size, int) or isinstance(size, bool) or size == 0 or size < -1:
        raise _cannot("group_size", size, "whole numbers above 0, and -1 for all inputs,")
    return max(size, 0)


def _one_of(given: Given, name: str, choices: tuple[int, ...]) -> int:
    value = given.get(name)
    if type(value) is not int or value not in choices:
        raise _cannot(name, value, ", ".join(map(str, choices)))
    return value


def _block(size: Any) -> tuple[int, int] | None:
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


def _cannot(name: str, value: Any, known: str) -> LoadFailed:
    return LoadFailed(
        f"config.json has quantization_config.{name} {value!r}, which cannot be read; {known} can"
    )

"""The weights of a GGUF model by Hugging Face's names: matrices packed as the file has them."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import Role, WeightName
from trivet.backends.llm.families.staging import WHOLE, Held
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.weights.gguf_blocks import grouped
from trivet.backends.llm.weights.gguf_header import GgufTensor
from trivet.backends.llm.weights.gguf_parts import GgufFile, GgufModel
from trivet.backends.llm.weights.latents import join_latents
from trivet.backends.llm.weights.rows import computed_order

log = logging.getLogger(__name__)
_LAYER = re.compile(r"[0-9]{1,5}")
_EXPANDED = {Role.POSITIONS, Role.ROUTER, Role.SHARED_SHARE, Role.LATENT_UP}
"""What is not multiplied as a matrix with rows, or decides too much."""


def gguf_weights(
    model: GgufModel, config: LlmConfig, dtype: torch.dtype, held: Held | None = None
) -> dict[str, Stored]:
    """Of all its files; only those that are `held`. Raises LoadFailed."""
    weights: dict[str, Stored] = {}
    expanded: Counter[str] = Counter()
    for file in model.files:
        _read(file, config, dtype, weights, expanded, held or Held(WHOLE, config))
    if expanded:
        types = ", ".join(f"{kind} ({count})" for kind, count in sorted(expanded.items()))
        log.info(
            "weights that do not stay packed, by type, expanded to %s: %s",
            str(dtype).removeprefix("torch."), types,
        )  # fmt: skip
    join_latents(weights, config)
    return weights


def _read(
    file: GgufFile,
    config: LlmConfig,
    dtype: torch.dtype,
    weights: dict[str, Stored],
    expanded: Counter[str],
    held: Held,
) -> None:
    for gguf_name, tensor, rows in _tensors(file):
        name = _GgufName.parsed(gguf_name, config)
        if not name.is_among(held):
            continue
        packed = list(_packed(tensor, rows, name, config, dtype))
        weights.update(packed)
        if packed:
            continue
        weight = _floats(gguf_name, tensor, rows, expanded)
        # Divisors of rotary frequencies: rounding them would turn far positions the wrong way.
        is_correction = name.weight is not None and Role.CORRECTION in name.weight.roles
        kept = gguf_name == config.names.rope_divisors or is_correction
        for hub_name, part in _as_in_hub(weight, name, config):
            weights[hub_name] = part if kept else part.to(dtype)


def gguf_values(model: GgufModel) -> Iterator[tuple[str, np.ndarray]]:
    """Names and numbers of a model's tensors, one after the other. Raises LoadFailed."""
    for file in model.files:
        for name, tensor, rows in _tensors(file):
            yield name, _values(name, tensor, rows)


def _tensors(file: GgufFile) -> Iterator[tuple[str, GgufTensor, Tensor]]:
    """Each with its bytes where they lie."""
    # Copied on write, of which there is none: torch warns of memory that cannot be written to.
    data = torch.from_numpy(np.asarray(np.memmap(file.path, mode="c")))
    for name, tensor in file.header.tensors.items():
        rows = data[tensor.start : tensor.start + tensor.size_bytes].view(tensor.shape)
        yield name, tensor, rows


def _packed(
    tensor: GgufTensor, rows: Tensor, name: "_GgufName", config: LlmConfig, dtype: torch.dtype
) -> Iterator[tuple[str, Stored]]:
    """A matrix, or the matrices of all experts, if it stays packed."""
    weight = name.weight
    if weight is None or name.ending != "weight" or _EXPANDED.intersection(weight.roles):
        return
    if rows.dim() != (3 if weight.is_of_experts else 2):
        return
    order = _file_order(name, weight, len(rows), config)
    for expert, own in enumerate(rows if weight.is_of_experts else [rows]):
        matrix = grouped(tensor.kind, own, dtype)
        if matrix is None:
            return
        yield name.in_hub(expert), matrix if order is None else matrix.reordered(order)


@dataclass(frozen=True, slots=True)
class _GgufName:
    """A tensor's name in a GGUF file, and which weight of its family it is."""

    name: str
    weight: WeightName | None
    """None: the family has none of that name, which the model will judge."""
    layer: int
    ending: str

    @classmethod
    def parsed(cls, name: str, config: LlmConfig) -> "_GgufName":
        """Of `blk.LAYER.STEM.ENDING` or `STEM.ENDING`."""
        stem, _, ending = name.rpartition(".")
        layer, parts = 0, stem.split(".", 2)
        if parts[0] == "blk" and len(parts) > 2 and _LAYER.fullmatch(parts[1]):
            layer, stem = int(parts[1]), f"blk.{{layer}}.{parts[2]}"
        weight = config.names.of_gguf(stem) if layer < config.num_layers else None
        return cls(name, weight, layer, ending)

    def is_among(self, held: Held) -> bool:
        """Whether it is of a stage."""
        if self.name.startswith("blk."):
            return held.has_layer(self.layer)
        return self.weight is None or any(map(held.has_role, self.weight.roles))

    def in_hub(self, expert: int = 0) -> str:
        """Hugging Face's name; its own where there is none."""
        if self.weight is None:
            return self.name
        return self.weight.whole_in_hub(self.ending, self.layer, expert)


def _as_in_hub(tensor: Tensor, name: _GgufName, config: LlmConfig) -> Iterator[tuple[str, Tensor]]:
    """As Hugging Face's files have it, where each expert has a weight of its own."""
    weight = name.weight
    if weight is None:
        yield name.in_hub(), tensor
        return
    if weight.is_of_experts:
        yield from ((name.in_hub(expert), part) for expert, part in enumerate(tensor))
        return
    order = _file_order(name, weight, len(tensor), config)
    tensor = tensor if order is None else tensor[order]
    if weight.gguf_offset and name.ending == "weight":
        tensor = tensor - weight.gguf_offset
    is_turned = weight.is_transposed and tensor.dim() > 1
    yield name.in_hub(), tensor.t() if is_turned else tensor


def _file_order(
    name: _GgufName, weight: WeightName, num_rows: int, config: LlmConfig
) -> Tensor | None:
    """The rows of the GGUF file, in the order of Hugging Face's; None where that is the file's.
    Raises LoadFailed."""
    attention = config.layers[name.layer].attention
    if weight.gguf_interleaves:
        # Converters interleave the two halves of each head, for a rotation of neighbours.
        is_query = Role.QUERY in weight.roles
        num_heads = attention.num_heads if is_query else attention.num_kv_heads
        rows = torch.arange(num_heads * attention.head_dim)
        order = rows.view(num_heads, -1, 2).transpose(1, 2).flatten()
    elif weight.groups_heads:
        computed = computed_order(weight, attention)
        assert computed is not None
        order = computed.argsort()
    else:
        return None
    if len(order) != num_rows:
        raise LoadFailed(
            f"weight '{name.name}' has {num_rows} rows; the metadata need {len(order)}"
        )
    return order


def _floats(name: str, tensor: GgufTensor, rows: Tensor, expanded: Counter[str]) -> Tensor:
    from gguf import GGMLQuantizationType

    kind = GGMLQuantizationType(tensor.kind).name
    if kind not in ("F32", "F16", "BF16", "F64"):
        expanded[kind] += 1
    return torch.from_numpy(_values(name, tensor, rows).copy())


def _values(name: str, tensor: GgufTensor, rows: Tensor) -> np.ndarray:
    """As the gguf package has them. Raises LoadFailed."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.kind)
    try:
        return dequantize(rows.numpy(), kind)
    except NotImplementedError as error:
        raise LoadFailed(f"tensor '{name}' is of type {kind.name}, which cannot be read") from error

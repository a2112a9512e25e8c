"""The Llama shape on a GPU: nine or ten kernels a layer, of which four are products.

`torch_decoder.py` says what it must give; weights and config are the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from trivet.backends.llm.adapters.bank import AdaptedProduct, AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.pages import PagedAttention
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.fp8 import FP8, Fp8Product
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.models import step_kernels
from trivet.backends.llm.models.parts import take_attention, take_mlp, take_norm
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.models.vocabulary import Vocabulary, handed_on
from trivet.backends.llm.weights.taking import Weights


class Rows(NamedTuple):
    """What a product reads: rows, and their scales if they are of 8-bit numbers."""

    data: Tensor
    scales: Tensor | None


class FusedLlama:
    """A decoder over the paged cache. Owned by the engine's thread."""

    def __init__(self, weights: Weights, attention: PagedAttention) -> None:
        """See TorchDecoder."""
        config = weights.config
        self._heads = config.attention
        self._eps = config.layers[0].norm.eps
        self._attention = attention
        self._ranks = weights.ranks
        self._vocabulary = Vocabulary(weights)
        half, device = self._heads.head_dim // 2, self._vocabulary.device
        tables = rotary_table(
            self._heads, config.max_positions, torch.float32, weights.rope_divisors()
        )
        cosines, sines = (table[:, :half].contiguous().to(device) for table in tables)
        self._angles = cosines, sines
        dtype = self._vocabulary.dtype
        self._layers = [_Layer(weights, index, dtype) for index in range(config.num_layers)]
        self._begin: Callable[[StepInputs], Tensor] = handed_on
        if config.is_first:
            self._begin = self._vocabulary.begin
        self._norm: Tensor | None = None
        if config.is_last:
            self._norm = take_norm(weights, config.norm, Role.FINAL_NORM).weight
        self._last_eps = config.norm.eps
        weights.refuse_rest()

    @property
    def is_recordable(self) -> bool:
        """Whether steps of one shape do the same on the device and ask it nothing."""
        return self._attention.is_recordable

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._attention.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`; see Model."""
        states = self._begin(inputs)
        residual = torch.empty_like(states)
        eps = self._eps
        self._attention.begin(inputs)
        is_first = True
        for index, layer in enumerate(self._layers):
            rows = normed(states, residual, layer.input_norm, eps, layer.qkv, adds=not is_first)
            is_first = False
            attended = self._attend(index, layer, layer.qkv(rows), inputs)
            states = self._ranks.sum(layer.output(_rows(attended, layer.output)))
            rows = normed(states, residual, layer.post_norm, eps, layer.gate_up)
            rows = silu_product(layer.gate_up(rows), layer.down)
            states = self._ranks.sum(layer.down(rows))
        if self._norm is None:
            return residual + states  # rounded as the kernel that adds them rounds
        states, residual = states[inputs.sample_rows], residual[inputs.sample_rows]
        return self._vocabulary.logits(normed(states, residual, self._norm, self._last_eps).data)

    def _attend(self, index: int, layer: "_Layer", qkv: Tensor, inputs: StepInputs) -> Tensor:
        kind = self._heads
        heads = (kind.num_heads, kind.num_kv_heads, kind.head_dim)
        if len(qkv):
            rotate(
                qkv, self._angles, inputs.positions, inputs.slot_mapping,
                self._attention.pages(index), self._attention.scales(index),
                (layer.query_norm, layer.key_norm), heads, layer.head_eps,
            )  # fmt: skip
        query = qkv[:, : kind.num_heads * kind.head_dim]
        query = query.view(-1, kind.num_heads, kind.head_dim)
        return self._attention.read(index, query).view(len(qkv), -1)


class _Product:
    """A product that reads what the kernel before it wrote."""

    def __init__(self, matrix: Multiplied, dtype: torch.dtype, bias: Tensor | None = None) -> None:
        self._dtype = dtype
        self._multiply = base = matrix.product(bias)
        self._adapters: AdapterBank | None = None
        if isinstance(self._multiply, AdaptedProduct):
            self._adapters, base = self._multiply.bank, self._multiply.base
        self._eight_bit = base if isinstance(base, Fp8Product) else None

    @property
    def is_8bit(self) -> bool:
        """Whether the rows it reads are: adapters read them as they were."""
        has_adapters = self._adapters is not None and self._adapters.step is not None
        return self._eight_bit is not None and not has_adapters

    def __call__(self, rows: Rows) -> Tensor:
        """[N, outputs]."""
        if self._eight_bit is not None and rows.scales is not None:
            return self._eight_bit.of_quantised(rows.data, rows.scales, self._dtype)
        return self._multiply(rows.data)


class _Layer:
    """A layer's weights in the layout to compute with."""

    def __init__(self, weights: Weights, index: int, dtype: torch.dtype) -> None:
        kind = weights.config.layers[index]
        attention, mlp = take_attention(weights, index), take_mlp(weights, index)
        self.input_norm = take_norm(weights, kind.norm, Role.ATTENTION_NORM, index).weight
        self.post_norm = take_norm(weights, kind.norm, Role.MLP_NORM, index).weight
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm
        self.head_eps = kind.attention.head_norm.eps if kind.attention.head_norm else 0.0
        self.qkv = _Product(attention.qkv, dtype, attention.qkv_bias)
        self.output = _Product(attention.output, dtype, attention.output_bias)
        self.gate_up = _Product(mlp.inner, dtype)
        self.down = _Product(mlp.down, dtype)


def normed(
    states: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    reader: "_Product | None" = None,
    *,
    adds: bool = True,
) -> Rows:
    """residual + states, which becomes the residual, normed for what reads it next."""
    rows = _empty_rows(states, states.shape[1], reader)
    _launch_rows(
        step_kernels.add_norm, len(states), states.shape[1],
        states, residual, weight, rows.data, _or(rows.scales, rows.data), eps, states.shape[1],
        ADDS=adds, QUANTISES=rows.scales is not None,
    )  # fmt: skip
    return rows


def silu_product(gate_up: Tensor, reader: "_Product") -> Rows:
    """silu(gate) * up for what reads it next."""
    num_columns = gate_up.shape[1] // 2
    rows = _empty_rows(gate_up, num_columns, reader)
    _launch_rows(
        step_kernels.silu_product, len(gate_up), num_columns,
        gate_up, rows.data, _or(rows.scales, rows.data), num_columns,
        QUANTISES=rows.scales is not None,
    )  # fmt: skip
    return rows


def quantised(states: Tensor) -> Rows:
    """Rows that no kernel of ours wrote, in 8 bits."""
    scales = states.new_empty(len(states), 1, dtype=torch.float32)
    rows = Rows(torch.empty_like(states, dtype=FP8), scales)
    num_columns = states.shape[1]
    _launch_rows(
        step_kernels.quantise_rows, len(states), num_columns, states, rows.data, scales, num_columns
    )
    return rows


def rotate(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor],
    positions: Tensor,
    slots: Tensor,
    pages: tuple[Tensor, Tensor],
    scales: tuple[float, float],
    norms: tuple[Tensor | None, Tensor | None],
    heads: tuple[int, int, int],
    eps: float,
) -> None:
    """Rotates queries where they lie; keys and values go to their slots of the pages."""
    num_heads, num_kv_heads, size = heads
    keys, values = pages
    step_kernels.rotate_and_write[(len(qkv), num_heads + 2 * num_kv_heads)](
        qkv, *angles, positions, slots, keys, values, _or(norms[0], qkv), _or(norms[1], qkv),
        qkv.stride(0), keys.stride(0), keys.stride(1), eps, 1 / scales[0], 1 / scales[1],
        NUM_HEADS=num_heads, NUM_KV_HEADS=num_kv_heads, HEAD_SIZE=size,
        NORMS=norms[0] is not None, IS_8BIT=keys.element_size() == 1, num_warps=1,
    )  # fmt: skip


def _rows(states: Tensor, reader: _Product) -> Rows:
    return quantised(states) if reader.is_8bit else Rows(states, None)


def _empty_rows(like: Tensor, num_columns: int, reader: _Product | None) -> Rows:
    if reader is None or not reader.is_8bit:
        return Rows(like.new_empty(len(like), num_columns), None)
    scales = like.new_empty(len(like), 1, dtype=torch.float32)
    return Rows(like.new_empty(len(like), num_columns, dtype=FP8), scales)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Something to point at where a kernel reads nothing."""
    return other if tensor is None else tensor


def _launch_rows(
    kernel: object, num_rows: int, num_columns: int, *args: object, **flags: bool
) -> None:
    """One program a row, which holds it whole."""
    block = triton.next_power_of_2(num_columns)
    if num_rows:
        kernel[(num_rows,)](*args, BLOCK=block, num_warps=min(max(block // 512, 1), 16), **flags)  # type: ignore[index]

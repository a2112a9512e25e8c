"""The Llama shape computed by the compiled step; models/torch_decoder.py says what it must give."""

import ctypes

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import GatedMlp
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.models.parts import take_attention, take_mlp, take_norm
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.models.vocabulary import take_embedding, take_head
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.structures import CLayer, CModel, CStep
from trivet.backends.llm.weights.adaptable import Adaptable
from trivet.backends.llm.weights.taking import Weights

PANEL = 32
"""Columns that one block of packed weights makes."""
HEAD_SIZES = (64, 128)
MAX_GROUP = 16
"""Query heads to a key/value head."""
COMPUTES = frozenset({
    Need.PRE_NORM, Need.RMS_NORM, Need.ROTARY, Need.WINDOW, Need.QKV_BIAS, Need.OUTPUT_BIAS,
    Need.HEAD_NORMS, Need.GATED_MLP, Need.SILU,
})  # fmt: skip
"""See Implementation."""


def why_not(config: LlmConfig, dtype: torch.dtype) -> str:
    """Why the compiled step cannot compute a model of its kinds; empty if it can."""
    heads, mlp = config.attention, config.layers[0].mlp
    assert isinstance(mlp, GatedMlp)
    if dtype != torch.bfloat16:
        return f"it computes in bfloat16, not {str(dtype).removeprefix('torch.')}"
    if heads.head_dim not in HEAD_SIZES:
        return f"heads are of size {heads.head_dim}, not one of {HEAD_SIZES}"
    if config.hidden_size % PANEL or mlp.intermediate_size % PANEL:
        return f"layer sizes are no multiples of {PANEL}"
    if heads.num_heads // heads.num_kv_heads > MAX_GROUP:
        return f"more than {MAX_GROUP} query heads share a key/value head"
    # It knows one epsilon.
    if any(norm is not None and norm.eps != config.norm.eps for norm in (
        config.layers[0].norm, heads.head_norm)):  # fmt: skip
        return "its norms are of several epsilons"
    return ""


class NativeModel:
    """A decoder over the paged cache. Owned by the engine's thread."""

    def __init__(self, weights: Weights, cache: KvCache, native: Native) -> None:
        """`why_not` must have said nothing. Raises LoadFailed as TorchDecoder does."""
        config = weights.config
        heads, mlp = config.attention, config.layers[0].mlp
        assert isinstance(mlp, GatedMlp)
        self._functions = native.functions
        self._vocabulary = config.vocabulary_size
        embedding = take_embedding(weights)
        head = pack(_padded(_data(take_head(weights, embedding))))
        cosines, sines = rotary_table(
            heads, config.max_positions, embedding.dtype, weights.rope_divisors()
        )
        norm = take_norm(weights, config.norm, Role.FINAL_NORM).weight
        self._kept: list[Tensor] = [embedding, norm, head, cosines, sines]
        self._model = CModel(
            config.hidden_size, mlp.intermediate_size, heads.num_heads,
            heads.num_kv_heads, heads.head_dim, config.num_layers,
            -(-config.vocabulary_size // PANEL) * PANEL, cache.block_size, heads.window,
            native.has_amx, torch.get_num_threads(), config.norm.eps, heads.scale,
            *map(_address, self._kept),
        )  # fmt: skip
        layers = [self._layer(weights, index, states) for index, states in enumerate(cache.layers)]
        weights.refuse_rest()
        self._layers = (CLayer * len(layers))(*layers)
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        num_tokens, num_samples = len(inputs.token_ids), len(inputs.sample_rows)
        logits = torch.empty(num_samples, self._model.vocabulary)
        num_sequences, most_blocks = inputs.block_tables.shape
        tensors = (
            inputs.token_ids, inputs.positions, inputs.slot_mapping, inputs.query_starts,
            inputs.sequence_lengths, inputs.block_tables.contiguous(), inputs.sample_rows, logits,
            self._memory(num_tokens, num_samples),
        )  # fmt: skip
        step = CStep(num_tokens, num_sequences, most_blocks, num_samples, *map(_address, tensors))
        self._functions.decode(ctypes.byref(self._model), self._layers, ctypes.byref(step))
        return logits[:, : self._vocabulary]

    def _memory(self, num_tokens: int, num_samples: int) -> Tensor:
        size = self._functions.scratch_bytes(ctypes.byref(self._model), num_tokens, num_samples)
        if len(self._scratch) < size:
            # Zeroed, for rows that only fill up a tile are computed with, too.
            self._scratch = torch.zeros(size, dtype=torch.uint8)
        return self._scratch

    def _layer(self, weights: Weights, index: int, states: Tensor) -> CLayer:
        kind = weights.config.layers[index]
        attention, mlp = take_attention(weights, index), take_mlp(weights, index)
        tensors = (
            take_norm(weights, kind.norm, Role.ATTENTION_NORM, index).weight,
            pack(_data(attention.qkv)), attention.qkv_bias, attention.query_norm,
            attention.key_norm, pack(_data(attention.output)), attention.output_bias,
            take_norm(weights, kind.norm, Role.MLP_NORM, index).weight,
            pack(_interleaved(_data(mlp.inner))), pack(_data(mlp.down)), states[0], states[1],
        )  # fmt: skip
        self._kept += [tensor for tensor in tensors if tensor is not None]
        return CLayer(*map(_address, tensors))


def pack(weight: Tensor) -> Tensor:
    """[N, K], both multiples of 32, as the products of decoder.c read it, from first to last byte.

    [N / 32, K / 32] blocks of two tiles of 16 columns each; a tile has 16 rows of 16 pairs, each
    pair two neighbours in K. (Intel's VNNI layout, which AMX and AVX512-BF16 share.)
    """
    columns, depth = weight.shape
    tiles = weight.view(columns // PANEL, 2, 16, depth // 32, 16, 2)
    return tiles.permute(0, 3, 1, 4, 2, 5).contiguous()


def _interleaved(gate_up: Tensor) -> Tensor:
    """[2 * N, K], a gate and what it lets through in the same block."""
    return gate_up.view(2, -1, 16, gate_up.shape[1]).transpose(0, 1).flatten(0, 2)


def _data(matrix: Multiplied) -> Tensor:
    if isinstance(matrix, Adaptable):
        matrix = matrix.matrix
    assert isinstance(matrix, Dense)  # of the formats that it multiplies
    return matrix.data


def _padded(head: Tensor) -> Tensor:
    missing = -len(head) % PANEL
    return torch.nn.functional.pad(head, (0, 0, 0, missing)) if missing else head


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()

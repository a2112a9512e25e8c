"""The Llama shape computed by the compiled step; models/llama.py says what it must give."""

import ctypes
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.device.kv_cache import KvCache
from trivet.backends.llm.models.config import LlmConfig
from trivet.backends.llm.models.linear import Weight
from trivet.backends.llm.models.llama_weights import Layer, read_weights
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.structures import CLayer, CModel, CStep

PANEL = 32
"""Columns that one block of packed weights makes."""
HEAD_SIZES = (64, 128)
MAX_GROUP = 16
"""Query heads to a key/value head."""


def why_not(config: LlmConfig, dtype: torch.dtype) -> str:
    """Why the compiled step cannot compute this model; empty if it can."""
    if dtype != torch.bfloat16:
        return f"it computes in bfloat16, not {str(dtype).removeprefix('torch.')}"
    if config.head_dim not in HEAD_SIZES:
        return f"heads are of size {config.head_dim}, not one of {HEAD_SIZES}"
    if config.hidden_size % PANEL or config.intermediate_size % PANEL:
        return f"layer sizes are no multiples of {PANEL}"
    if config.num_heads // config.num_kv_heads > MAX_GROUP:
        return f"more than {MAX_GROUP} query heads share a key/value head"
    return ""


class NativeModel:
    """A decoder over the paged cache. Owned by the engine's thread."""

    def __init__(
        self, config: LlmConfig, weights: Mapping[str, Tensor], cache: KvCache, native: Native
    ) -> None:
        """`why_not` must have said nothing. Raises LoadFailed as LlamaModel does."""
        self._functions = native.functions
        read = read_weights(config, weights)
        self._vocabulary = config.vocabulary_size
        head = pack(_padded(read.head.data))
        self._kept: list[Tensor] = [read.embedding, read.norm, head, read.cosines, read.sines]
        self._model = CModel(
            config.hidden_size, config.intermediate_size, config.num_heads, config.num_kv_heads,
            config.head_dim, config.num_layers, -(-config.vocabulary_size // PANEL) * PANEL,
            cache.block_size, config.sliding_window, native.has_amx, torch.get_num_threads(),
            config.rms_norm_eps, config.attention_scale, *map(_address, self._kept),
        )  # fmt: skip
        layers = [
            self._keep(_packed(layer), states)
            for layer, states in zip(read.layers, cache.layers, strict=True)
        ]
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

    def _keep(self, layer: Layer, states: Tensor) -> CLayer:
        tensors = (
            layer.input_norm, layer.qkv.data, layer.qkv_bias, layer.query_norm, layer.key_norm,
            layer.output.data, layer.output_bias, layer.post_norm, layer.gate_up.data,
            layer.down.data,
            states[0], states[1],
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


def _packed(layer: Layer) -> Layer:
    # A gate and what it lets through come out of the same block.
    given = layer.gate_up.data
    gate_up = given.view(2, -1, 16, given.shape[1]).transpose(0, 1).flatten(0, 2)
    return replace(
        layer,
        qkv=Weight(pack(layer.qkv.data)),
        output=Weight(pack(layer.output.data)),
        gate_up=Weight(pack(gate_up)),
        down=Weight(pack(layer.down.data)),
    )


def _padded(head: Tensor) -> Tensor:
    missing = -len(head) % PANEL
    return torch.nn.functional.pad(head, (0, 0, 0, missing)) if missing else head


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()

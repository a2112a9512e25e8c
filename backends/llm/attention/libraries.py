"""Attention by kernel libraries that happen to be installed, all over our cache as it lies.

A library is known by what its functions take, not by its version: wheels of one version differ.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.pages import PagedAttention
from trivet.backends.llm.families.config import LlmConfig

HEAD_SIZES = (64, 128, 256)
"""That all of them know, and our own kernels around them."""
FA2_PAGE = 256
"""FlashAttention-2's kernels read pages of so many places, or of a multiple."""
FLASHINFER_BYTES = 128 * 1024 * 1024
"""The workspace that FlashInfer's documents name."""


def missing(module: str, function: str, wanted: set[str]) -> str:
    """Why a function cannot be used: not there, or without some parameters; empty if it can."""
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, OSError) as error:
        return f"{module}.{function} is not there ({type(error).__name__})"
    lacking = wanted - inspect.signature(found).parameters.keys()
    return f"{module}.{function} takes no {', '.join(sorted(lacking))}" if lacking else ""


def _is_hopper(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9


class Library(PagedAttention):
    """What they have in common: pages as [blocks, block size, key/value heads, head size]."""

    def __init__(self, cache: KvCache, config: LlmConfig) -> None:
        super().__init__(cache)
        # What they are told is the same for all layers.
        self._heads = config.attentions[0]
        window = self._heads.window
        self._window = (window - 1, 0) if window else (-1, 0)

    def hold(self, cache: KvCache) -> None:
        """See Attention."""
        super().hold(cache)
        self._blocks = [(layer[0], layer[1]) for layer in cache.layers]

    @property
    def _most_queries(self) -> int:
        """Of one sequence; at most the whole step's, for how many it is only the device knows."""
        inputs = self._inputs
        is_decode = len(inputs.token_ids) == len(inputs.sequence_lengths)
        return 1 if is_decode else len(inputs.token_ids)


class Fa3Attention(Library):
    """FlashAttention-3, for Hopper."""

    @staticmethod
    def why_not(config: LlmConfig, cache: KvCache) -> str:
        """Empty if it can be used."""
        wanted = {"q", "k_cache", "v_cache", "cache_seqlens", "page_table", "cu_seqlens_q",
                  "max_seqlen_q", "softmax_scale", "causal", "window_size"}  # fmt: skip
        if cache.layers[0].element_size() != 2:
            return "the cache is not of 16-bit numbers"
        if config.attentions[0].head_dim not in HEAD_SIZES:
            return f"heads are of size {config.attentions[0].head_dim}"
        if not _is_hopper(cache.layers[0].device):
            return "the GPU is no Hopper"
        return missing("flash_attn_interface", "flash_attn_with_kvcache", wanted)

    def __init__(self, cache: KvCache, config: LlmConfig) -> None:
        super().__init__(cache, config)
        module = importlib.import_module("flash_attn_interface")
        self._attend: Callable[..., Any] = module.flash_attn_with_kvcache

    def read(self, layer: int, query: Tensor) -> Tensor:
        """See PagedAttention."""
        keys, values = self._blocks[layer]
        inputs = self._inputs
        found = self._attend(
            q=query, k_cache=keys, v_cache=values,
            cache_seqlens=inputs.sequence_lengths, page_table=inputs.block_tables,
            cu_seqlens_q=inputs.query_starts, max_seqlen_q=self._most_queries,
            softmax_scale=self._heads.scale, causal=True,
            window_size=self._window if self._heads.window else (-1, -1),
        )  # fmt: skip
        # Some builds give the sums of exponentials beside it.
        output: Tensor = found[0] if isinstance(found, tuple) else found
        return output


class VarlenAttention(Library):
    """torch's own, of FlashAttention-2 kernels; with pages from torch 2.12 on."""

    @staticmethod
    def why_not(config: LlmConfig, cache: KvCache) -> str:
        """Empty if it can be used."""
        if cache.layers[0].element_size() != 2:
            return "the cache is not of 16-bit numbers"
        if cache.block_size % FA2_PAGE:
            return f"its pages are multiples of {FA2_PAGE} places, block_size is {cache.block_size}"
        if config.attentions[0].head_dim not in HEAD_SIZES:
            return f"heads are of size {config.attentions[0].head_dim}"
        wanted = {"block_table", "seqused_k", "enable_gqa", "scale", "window_size"}
        return missing("torch.nn.attention.varlen", "varlen_attn", wanted)

    def __init__(self, cache: KvCache, config: LlmConfig) -> None:
        super().__init__(cache, config)
        module = importlib.import_module("torch.nn.attention.varlen")
        self._attend: Callable[..., Any] = module.varlen_attn

    def read(self, layer: int, query: Tensor) -> Tensor:
        """See PagedAttention."""
        keys, values = self._blocks[layer]
        inputs = self._inputs
        longest = inputs.block_tables.shape[1] * self._block_size
        output: Tensor = self._attend(
            query, keys, values, inputs.query_starts, None, self._most_queries, longest,
            scale=self._heads.scale, window_size=self._window, enable_gqa=True,
            seqused_k=inputs.sequence_lengths, block_table=inputs.block_tables,
        )  # fmt: skip
        return output


class FlashInferAttention(Library):
    """FlashInfer. It plans each step on the host and asks the device for the lengths: its steps
    cannot be recorded, and wait."""

    is_recordable = False

    @staticmethod
    def why_not(config: LlmConfig, cache: KvCache) -> str:
        """Empty if it can be used."""
        if cache.layers[0].element_size() != 2:
            return "the cache is not of 16-bit numbers"
        if config.attentions[0].head_dim not in HEAD_SIZES:
            return f"heads are of size {config.attentions[0].head_dim}"
        return missing(
            "flashinfer", "BatchPrefillWithPagedKVCacheWrapper", {"float_workspace_buffer"}
        )

    def __init__(self, cache: KvCache, config: LlmConfig) -> None:
        super().__init__(cache, config)
        module = importlib.import_module("flashinfer")
        device = cache.layers[0].device
        workspace = torch.empty(FLASHINFER_BYTES, dtype=torch.uint8, device=device)
        self._wrapper = module.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")

    def begin(self, inputs: StepInputs) -> None:
        """See Attention."""
        super().begin(inputs)
        lengths = inputs.sequence_lengths
        counts = (lengths + self._block_size - 1) // self._block_size
        starts = torch.zeros(len(counts) + 1, dtype=torch.int32, device=counts.device)
        torch.cumsum(counts, 0, out=starts[1:])
        places = torch.arange(inputs.block_tables.shape[1], device=counts.device)
        used = inputs.block_tables[places < counts.unsqueeze(1)]
        heads, dtype = self._heads, self._blocks[0][0].dtype
        self._wrapper.plan(
            inputs.query_starts, starts, used, (lengths - 1) % self._block_size + 1,
            heads.num_heads, heads.num_kv_heads, heads.head_dim, self._block_size,
            causal=True, sm_scale=heads.scale, window_left=self._window[0],
            q_data_type=dtype, kv_data_type=dtype,
        )  # fmt: skip

    def read(self, layer: int, query: Tensor) -> Tensor:
        """See PagedAttention."""
        output: Tensor = self._wrapper.run(query, self._blocks[layer])
        return output


BY_NAME: Mapping[str, type[Fa3Attention] | type[VarlenAttention] | type[FlashInferAttention]] = {
    "fa3": Fa3Attention,
    "varlen": VarlenAttention,
    "flashinfer": FlashInferAttention,
}

"""Attention by our own Triton kernels: on a GPU, or anywhere under Triton's interpreter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from trivet.backends.llm.attention import paged_kernels
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.pages import PagedAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import GroupedAttention

DECODE_TILE = 64
"""Places that a decode program reads at a time."""
MIN_TILES_PER_SPLIT = 4
MAX_SPLITS = 32
PROGRAMS_PER_PROCESSOR = 4
"""Decode programs that a multiprocessor holds at a time; fewer leave it waiting for memory."""
MIN_ROWS = 16
"""The tensor cores' smallest product."""
MAX_HEAD_SIZE = 256


def why_not(config: LlmConfig) -> str:
    """Why the kernels cannot compute this model; empty if they can."""
    size = config.attentions[0].head_dim
    if size & (size - 1) or not MIN_ROWS <= size <= MAX_HEAD_SIZE:
        return f"heads are of size {size}, no power of 2 from {MIN_ROWS} to {MAX_HEAD_SIZE}"
    return ""


@dataclass(frozen=True, slots=True)
class ChunkTiles:
    """How a product of a chunk is cut."""

    rows: int
    """Tokens times query heads of a key/value head."""
    places: int
    num_warps: int

    @classmethod
    def of(cls, head_size: int, group: int, item_bytes: int) -> "ChunkTiles":
        """As large as registers and shared memory hold; nothing spills on sm_90."""
        is_half = item_bytes <= 2
        rows = max(128 if is_half and head_size <= 128 else 64, triton.next_power_of_2(group))
        return cls(rows, 64 if is_half else 32, num_warps=8)


def choose_splits(programs: int, longest: int, num_processors: int) -> int:
    """In how many parts each sequence's places are read: a power of 2, so that few kernels are
    compiled. `programs`: sequences times key/value heads, which alone may leave processors idle."""
    wanted = PROGRAMS_PER_PROCESSOR * num_processors // max(programs, 1)
    most = min(wanted, longest // (MIN_TILES_PER_SPLIT * DECODE_TILE), MAX_SPLITS)
    return 1 << max(most, 1).bit_length() - 1


class TritonAttention(PagedAttention):
    """Reads pages where they lie: nothing is gathered, and no number of a step is asked from the
    device. Sequences with one query are decoded, the rest are chunks, whatever their order."""

    def __init__(self, cache: KvCache, layers: Sequence[GroupedAttention]) -> None:
        """`layers`: of this process, which may differ by scale and window."""
        super().__init__(cache)
        num_heads = layers[0].num_heads
        self._score_scales = [kind.scale for kind in layers]
        self._windows = [kind.window for kind in layers]
        keys, _ = self.pages(0)
        head_size = keys.shape[2]
        self._group = num_heads // self._num_kv_heads
        self._num_processors = _num_processors(keys.device)
        self._tiles = ChunkTiles.of(head_size, self._group, keys.element_size())
        # Of one address for good, as recorded graphs of a step need it.
        parts = PROGRAMS_PER_PROCESSOR * self._num_processors * self._group
        self._partial = torch.empty(parts, head_size, dtype=torch.float32, device=keys.device)
        self._log_sums = torch.empty(parts, dtype=torch.float32, device=keys.device)
        self._shape: dict[str, Any] = {
            "NUM_HEADS": num_heads,
            "HEAD_SIZE": head_size,
        }
        self._pages: dict[str, Any] = {
            "GROUP": self._group,
            "BLOCK_SIZE": cache.block_size,
        }

    def begin(self, inputs: StepInputs) -> None:
        """Decides by the shapes alone."""
        super().begin(inputs)
        num_sequences, num_blocks = inputs.block_tables.shape
        programs = num_sequences * self._num_kv_heads
        longest = num_blocks * self._block_size
        self._num_splits = choose_splits(programs, longest, self._num_processors)

    def read(self, layer: int, query: Tensor) -> Tensor:
        """See PagedAttention."""
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        self._decode(layer, query, output)
        if len(query) > len(self._inputs.sequence_lengths):
            self._attend_chunks(layer, query, output)
        return output

    def _decode(self, layer: int, query: Tensor, output: Tensor) -> None:
        inputs, num_splits = self._inputs, self._num_splits
        keys, values = self.pages(layer)
        key_scale, value_scale = self.scales(layer)
        num_sequences = len(inputs.sequence_lengths)
        paged_kernels.decode_split[(num_sequences, self._num_kv_heads, num_splits)](
            query, keys, values, inputs.block_tables, inputs.sequence_lengths, inputs.query_starts,
            output, self._partial, self._log_sums,
            self._score_scales[layer] * key_scale, value_scale,
            query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
            inputs.block_tables.stride(0),
            PADDED_GROUP=max(MIN_ROWS, triton.next_power_of_2(self._group)),
            TILE=DECODE_TILE, NUM_SPLITS=num_splits, num_warps=4, num_stages=3,
            WINDOW=self._windows[layer], **self._shape, **self._pages,
        )  # fmt: skip
        if num_splits > 1:
            paged_kernels.combine_splits[(num_sequences, query.shape[1])](
                self._partial, self._log_sums, inputs.query_starts, output,
                NUM_SPLITS=num_splits, PADDED_SPLITS=num_splits, num_warps=2, **self._shape,
            )  # fmt: skip

    def _attend_chunks(self, layer: int, query: Tensor, output: Tensor) -> None:
        inputs, tiles = self._inputs, self._tiles
        keys, values = self.pages(layer)
        key_scale, value_scale = self.scales(layer)
        num_sequences, num_queries = len(inputs.sequence_lengths), tiles.rows // self._group
        num_programs = len(query) // num_queries + num_sequences
        paged_kernels.attend_chunks[(num_programs, self._num_kv_heads)](
            query, keys, values, inputs.block_tables, inputs.sequence_lengths, inputs.query_starts,
            output, self._score_scales[layer] * key_scale, value_scale, num_sequences,
            query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
            inputs.block_tables.stride(0),
            ROWS=tiles.rows, QUERIES=num_queries, TILE=tiles.places,
            num_warps=tiles.num_warps, num_stages=3,
            WINDOW=self._windows[layer], **self._shape, **self._pages,
        )  # fmt: skip


def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 8
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

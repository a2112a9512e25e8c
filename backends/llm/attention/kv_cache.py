"""The memory of keys and values: one tensor a layer, in blocks that the block pool hands out."""

from math import prod

import numpy as np
import torch
from torch import Tensor

from trivet.backends.llm.families.config import LlmConfig

CPU = torch.device("cpu")
_ALIGNMENT = 64
"""Bytes: a line of the processor's caches."""


class KvCache:
    """Keys and values of all layers. Block 0 stands in for blocks that a sequence does not
    have: it is read, with weight zero, and stays zero."""

    def __init__(
        self,
        config: LlmConfig,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device = CPU,
        scales: list[tuple[float, float]] | None = None,
        read_as: torch.dtype | None = None,
    ) -> None:
        """`dtype`: of what is kept. `scales`: of each layer's keys and values, by which a cache of
        8 bits divides them. `read_as`: the type that they are computed with; None: the same."""
        self.block_size = block_size
        self.read_as = read_as or dtype
        self.scales = scales or [(1.0, 1.0)] * config.num_layers
        kinds = [layer.attention for layer in config.layers]
        shapes = [
            (kind.num_cached, num_blocks, block_size, kind.num_kv_heads, kind.head_dim)
            for kind in kinds
        ]
        self.layers: list[Tensor] = [_zeros(shape, dtype, device) for shape in shapes]
        """For each layer: keys and values, [2, blocks, block size, key/value heads, head size]; 1
        for 2 where they are the same."""


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a processor each page comes when something is kept there first: a large cache takes no
    time to load, and a model that is asked little takes little memory."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = prod(shape) * dtype.itemsize
    room = torch.from_numpy(np.zeros(size + _ALIGNMENT, np.uint8))
    start = -room.data_ptr() % _ALIGNMENT
    return room[start : start + size].view(dtype).view(shape)

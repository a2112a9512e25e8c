"""Hugging Face files that have all experts of a layer as one tensor, as files that have them one by
one; also where it is packed in MXFP4, as which it stays."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import StackedExperts
from trivet.backends.llm.matrices.bits import CHUNK
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.weights.gguf_blocks import E2M1, e8m0_halves

_BLOCKS, _SCALES = "_blocks", "_scales"


def unstack(weights: dict[str, Stored], config: LlmConfig, dtype: torch.dtype) -> None:
    """Puts each expert's own in the place of what is stacked. Raises LoadFailed."""
    for stack in config.names.stacked:
        for layer in range(config.num_layers):
            own = _Stack(weights, config, stack, layer)
            own.put_packed(dtype)
            # [experts, inputs, outputs] to [outputs, inputs] of each.
            own.put("", "weight", num_dims=3)
            own.put("_bias", "bias", num_dims=2)


class _Stack:
    """What a layer has stacked; taken out of the weights, among which its parts are put."""

    def __init__(
        self, weights: dict[str, Stored], config: LlmConfig, stack: StackedExperts, layer: int
    ) -> None:
        self._weights = weights
        self._names = [config.names.of(role) for role in stack.roles]
        self._layer = layer
        self._name = stack.hub.format(layer=layer)

    def put(self, behind: str, ending: str, *, num_dims: int) -> None:
        """Plain numbers, of [experts, .., outputs]. Raises LoadFailed."""
        whole = self._weights.pop(self._name + behind, None)
        if not isinstance(whole, Tensor):
            return
        if whole.dim() != num_dims:
            raise LoadFailed(
                f"weight '{self._name}{behind}' is of shape {list(whole.shape)}, not one for each "
                "expert"
            )
        whole = (
            whole.transpose(1, 2) if num_dims == len(("experts", "inputs", "outputs")) else whole
        )
        for place, name in enumerate(self._names):
            for expert, part in enumerate(whole[:, place :: len(self._names)]):
                self._weights[name.whole_in_hub(ending, self._layer, expert)] = part

    def put_packed(self, dtype: torch.dtype) -> None:
        """MXFP4: blocks of uint8 [experts, outputs, blocks, bytes of a block], the first of two
        numbers in the lower bits, and a scale for each block. Raises LoadFailed."""
        blocks = self._weights.pop(self._name + _BLOCKS, None)
        if not isinstance(blocks, Tensor):
            return
        scales = self._weights.pop(self._name + _SCALES, None)
        if not isinstance(scales, Tensor) or scales.shape != blocks.shape[:-1]:
            found = f"got {list(scales.shape)}" if isinstance(scales, Tensor) else "there are none"
            raise LoadFailed(
                f"the blocks '{self._name}{_BLOCKS}' of shape {list(blocks.shape)} need scales of "
                f"shape {list(blocks.shape[:-1])} in '{self._name}{_SCALES}'; {found}"
            )
        if blocks.dim() != len(("experts", "outputs", "blocks", "bytes")) or (
            blocks.shape[-1] != CHUNK // 2
        ):
            raise LoadFailed(
                f"the blocks '{self._name}{_BLOCKS}' are of shape {list(blocks.shape)}, not "
                f"{CHUNK // 2} bytes for each block of each output of each expert"
            )
        for place, name in enumerate(self._names):
            for expert in range(len(blocks)):
                own = slice(place, None, len(self._names))
                stem = name.whole_in_hub("weight", self._layer, expert)
                self._weights[stem] = _packed(blocks[expert, own], scales[expert, own], dtype)


def _packed(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Grouped:
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(1)
    return Grouped.of_codes(codes, e8m0_halves(scales), E2M1, dtype)

"""Hugging Face files that have all experts of a layer as one tensor, as files that have them one by
one; also where it is packed in MXFP4."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import StackedExperts

_BLOCKS, _SCALES = "_blocks", "_scales"
_FOUR_BITS = 4
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""By three bits, two of the exponent and one of the mantissa; the fourth is the sign (OCP
Microscaling Formats, 2023, 5.3.3)."""
_SCALE_BIAS = 127
"""Scales are powers of 2 whose exponents are stored with it (E8M0, 5.4.1)."""


def is_packed(name: str) -> bool:
    """Whether a tensor's bytes are more than one number each, or an exponent."""
    return name.endswith((_BLOCKS, _SCALES))


def unstack(weights: dict[str, Tensor], config: LlmConfig, dtype: torch.dtype) -> None:
    """Puts each expert's own in the place of what is stacked. Raises LoadFailed."""
    for stack in config.names.stacked:
        for layer in range(config.num_layers):
            name = stack.hub.format(layer=layer)
            whole = _taken(weights, name, dtype)
            if whole is not None:
                # [experts, inputs, outputs] to [outputs, inputs] of each.
                _put(weights, config, stack, layer, "weight", whole.transpose(1, 2))
            bias = weights.pop(f"{name}_bias", None)
            if bias is not None:
                _put(weights, config, stack, layer, "bias", bias)


def _put(
    weights: dict[str, Tensor],
    config: LlmConfig,
    stack: StackedExperts,
    layer: int,
    ending: str,
    whole: Tensor,
) -> None:
    """`whole`: [experts, outputs, ..]."""
    count = len(stack.roles)
    for place, role in enumerate(stack.roles):
        own = config.names.of(role)
        for expert, part in enumerate(whole[:, place::count]):
            weights[own.whole_in_hub(ending, layer, expert)] = part


def _taken(weights: dict[str, Tensor], name: str, dtype: torch.dtype) -> Tensor | None:
    """[experts, inputs, outputs]; None where there is none of that name, which whoever needs it
    will say. Raises LoadFailed."""
    if name in weights:
        whole = weights.pop(name)
    elif name + _BLOCKS in weights:
        blocks = weights.pop(name + _BLOCKS)
        scales = weights.pop(name + _SCALES, None)
        if scales is None or scales.shape != blocks.shape[:-1]:
            found = "there are none" if scales is None else f"got {list(scales.shape)}"
            raise LoadFailed(
                f"the blocks '{name}{_BLOCKS}' of shape {list(blocks.shape)} need scales of shape "
                f"{list(blocks.shape[:-1])} in '{name}{_SCALES}'; {found}"
            )
        whole = _expanded(blocks, scales, dtype)
    else:
        return None
    if whole.dim() != len(("experts", "inputs", "outputs")):
        raise LoadFailed(
            f"weight '{name}' is of shape {list(whole.shape)}, not one for each expert"
        )
    return whole


def _expanded(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """MXFP4: uint8 [experts, outputs, blocks, bytes of a block], the first of two numbers in the
    lower bits, and a scale for each block, to [experts, inputs, outputs]."""
    num_experts, outputs, num_blocks, num_bytes = blocks.shape
    whole = torch.empty(num_experts, outputs, num_blocks * num_bytes * 2, dtype=dtype)
    # One by one: what leads to an expert's numbers takes several times their memory.
    for expert, into in enumerate(whole):
        into.copy_(_numbers(blocks[expert], scales[expert]))
    return whole.transpose(1, 2)


def _numbers(blocks: Tensor, scales: Tensor) -> Tensor:
    """An expert's, in float32."""
    values = torch.tensor((*_E2M1, *(-value for value in _E2M1)))
    numbers = torch.stack((blocks & 15, blocks >> _FOUR_BITS), dim=-1).flatten(-2)
    exponents = scales.int().unsqueeze(-1) - _SCALE_BIAS
    return torch.ldexp(values[numbers.int()], exponents).flatten(-2)

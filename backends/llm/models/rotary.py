"""Tables of rotary positions. A way of scaling them is one function in SCALINGS."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trivet.backends.llm.families.kinds import GroupedAttention, RopeScaling


def rotary_table(
    kind: GroupedAttention,
    num_positions: int,
    dtype: torch.dtype,
    divisors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for each position, [positions, head size]: halves repeat (GPT-NeoX).
    `divisors`: of the frequencies, [head size / 2]."""
    assert kind.rope is not None
    exponents = torch.arange(0, kind.head_dim, 2, dtype=torch.float32) / kind.head_dim
    frequencies = 1.0 / kind.rope.theta**exponents
    if kind.rope.scaling is not None:
        frequencies = SCALINGS[kind.rope.scaling.kind](frequencies, kind.rope.scaling)
    if divisors is not None:
        frequencies = frequencies / divisors.cpu()
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _linear(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    return frequencies / scaling.factor


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    # Low frequencies are divided, high ones kept, those between are interpolated (Llama 3.1).
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = (scaling.original_positions / wavelengths - low) / (high - low)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


SCALINGS: Mapping[str, Callable[[Tensor, RopeScaling], Tensor]] = {
    "linear": _linear,
    "llama3": _llama3,
}
"""By RopeScaling's kind: from frequencies to frequencies, [head size / 2]."""

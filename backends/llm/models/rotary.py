"""Tables of rotary positions. A way of scaling them is one function in SCALINGS."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trivet.backends.llm.families.kinds import GroupedAttention, Rope, RopeScaling


def rotary_table(
    kind: GroupedAttention,
    num_positions: int,
    dtype: torch.dtype,
    divisors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for each position, [positions, what is rotated of a head]: halves repeat
    (GPT-NeoX). `divisors`: of the frequencies, for half of that."""
    assert kind.rope is not None
    size = kind.rotary_size
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    frequencies = 1.0 / kind.rope.theta**exponents
    scale = 1.0
    if kind.rope.scaling is not None:
        scale = kind.rope.scaling.attention_factor
        frequencies = SCALINGS[kind.rope.scaling.kind](frequencies, kind.rope, kind.rope.scaling)
    if divisors is not None:
        frequencies = frequencies / divisors.cpu()
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def _linear(frequencies: Tensor, rope: Rope, scaling: RopeScaling) -> Tensor:  # noqa: ARG001
    return frequencies / scaling.factor


def _llama3(frequencies: Tensor, rope: Rope, scaling: RopeScaling) -> Tensor:  # noqa: ARG001
    # Low frequencies are divided, high ones kept, those between are interpolated (Llama 3.1).
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = (scaling.original_positions / wavelengths - low) / (high - low)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def _yarn(frequencies: Tensor, rope: Rope, scaling: RopeScaling) -> Tensor:
    # As Llama 3's, but between turns within the original length (Peng et al., YaRN, 2023).
    half = len(frequencies)

    def place(turns: float) -> float:
        """The frequency, by its number, that turns so often."""
        length = scaling.original_positions / (turns * 2 * math.pi)
        return half * math.log(length) / math.log(rope.theta)

    first, last = place(scaling.beta_fast), place(scaling.beta_slow)
    if scaling.truncates:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    width = 0.001 if first == last else last - first
    divided = ((torch.arange(half, dtype=torch.float32) - first) / width).clamp(0, 1)
    return frequencies / scaling.factor * divided + frequencies * (1 - divided)


def _longrope(frequencies: Tensor, rope: Rope, scaling: RopeScaling) -> Tensor:  # noqa: ARG001
    return frequencies / torch.tensor(scaling.divisors)


SCALINGS: Mapping[str, Callable[[Tensor, Rope, RopeScaling], Tensor]] = {
    "linear": _linear,
    "dynamic": lambda frequencies, rope, scaling: frequencies,  # noqa: ARG005  # see stretching.py
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""By RopeScaling's kind: from frequencies to frequencies, half of what is rotated of a head."""

"""Rotary positions that change with the length of what is computed: dynamic scaling and LongRoPE.

transformers turns the new keys of each forward pass by the longest position in it, and leaves the
keys that are cached as they are. So what a token sees depends on how prompts were cut up and with
whom they were computed, and what is cached for one length is wrong for another. Up to the length
that the model had before it was scaled nothing changes: that is served as it is.

Whoever sets `max_model_len` beyond it gets what vLLM does: one way for all lengths, LongRoPE's long
divisors or dynamic scaling's frequencies at its full length. For LongRoPE a longer prompt then
gives what transformers gives; shorter ones are turned as the longer ones are.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import Layer, Rope

log = logging.getLogger(__name__)
DYNAMIC, LONGROPE = "dynamic", "longrope"


def most_positions(ropes: Iterable[Rope | None], max_positions: int) -> int:
    """How many there are where ropes are stretched; 0 where none can be. `max_positions`: by the
    file."""
    lengths = [_length(rope, max_positions) for rope in ropes if _is_stretchable(rope)]
    return min(lengths, default=0)


def for_length(config: LlmConfig, max_model_len: int) -> LlmConfig:
    """The config with which sequences of so many tokens are computed; 0: as many as it says."""
    num_positions = min(max_model_len, config.stretched_positions)
    if num_positions <= config.max_positions:
        return config
    log.info(
        "rotary positions are those of long sequences for all, since max_model_len is beyond the "
        "%d tokens up to which this model's do not change",
        config.max_positions,
    )
    layers = tuple(_stretched(layer) for layer in config.layers)
    return replace(config, layers=layers, max_positions=num_positions)


def _is_stretchable(rope: Rope | None) -> bool:
    return (
        rope is not None and rope.scaling is not None and rope.scaling.kind in (DYNAMIC, LONGROPE)
    )


def _length(rope: Rope | None, max_positions: int) -> int:
    assert rope is not None
    assert rope.scaling is not None
    if rope.scaling.kind == LONGROPE:
        return max_positions
    return int(rope.scaling.original_positions * rope.scaling.factor)


def _stretched(layer: Layer) -> Layer:
    attention = layer.attention
    rope = attention.rope
    if rope is None or rope.scaling is None or not _is_stretchable(rope):
        return layer
    scaling = rope.scaling
    if scaling.kind == LONGROPE:
        rope = replace(rope, scaling=replace(scaling, divisors=scaling.long_divisors))
    else:
        # At `factor` times the length, by bloc97 and emozilla (2023), as transformers has it.
        size = attention.rotary_size
        grown = (scaling.factor * scaling.factor - (scaling.factor - 1)) ** (size / (size - 2))
        rope = replace(rope, theta=rope.theta * grown, scaling=None)
    return replace(layer, attention=replace(attention, rope=rope))

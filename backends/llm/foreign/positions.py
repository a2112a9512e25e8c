"""How many positions a model of transformers has, of those that do not change with others."""

from typing import Any

_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
)
_WITHOUT_LIMIT = 8192
"""Of models whose config names none: those without positions, or with biases instead."""


def max_positions(config: Any) -> int:
    """As the config says; of longrope what its short frequencies are for, since a sequence that
    passes that would have had other keys from its first token on."""
    text = config.get_text_config(decoder=True)
    found = [getattr(text, name, None) for name in _LIMITS]
    limit = next(
        (int(each) for each in found if isinstance(each, int) and each > 0), _WITHOUT_LIMIT
    )
    return min([limit, *_short_ropes(getattr(text, "rope_parameters", None), text)])


def _short_ropes(rope: Any, config: Any) -> list[int]:
    if not isinstance(rope, dict):
        return []
    if rope.get("rope_type") == "longrope":
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        return [int(original)] if original else []
    return [limit for each in rope.values() for limit in _short_ropes(each, config)]

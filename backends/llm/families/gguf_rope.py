"""Rotary positions as GGUF files spell them, which is llama.cpp's way; a key that would change the
result and is not used is refused."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.kinds import Rope, RopeScaling
from trivet.backends.llm.families.rope import DEFAULT_THETA

_READ = {
    "dimension_count", "freq_base", "scaling.type", "scaling.factor", "scale_linear",
}  # fmt: skip
_LOG_MULTIPLIER = "scaling.yarn_log_multiplier"
"""A tenth of YaRN's mscale_all_dim: scores are scaled then, cosines and sines are not."""
_ABOUT_TRAINING = {"scaling.finetuned", "scaling.original_context_length"}
"""What a file tells of its making, which changes nothing but for YaRN."""
_NEUTRAL = {"scaling.attn_factor": 1.0}


def gguf_rope(
    metadata: Described,
    architecture: str,
    head_dim: int,
    *,
    is_partial: bool = False,
    scales_scores: bool = False,
) -> Rope:
    """A GGUF file's. `is_partial`: whether a part of each head may be rotated; `scales_scores`:
    whether the model reads YaRN's mscale_all_dim. Raises LoadFailed naming the key."""
    prefix = f"{architecture}.rope."
    given = {
        name.removeprefix(prefix): value
        for name, value in metadata.items()
        if name.startswith(prefix)
    }
    size = given.get("dimension_count", head_dim)
    if size != head_dim and not is_partial:
        raise LoadFailed(
            f"the GGUF file has {prefix}dimension_count {size}; models of this architecture that "
            f"rotate a part of each head only ({head_dim} numbers) are not supported"
        )
    _refuse_unread(given, prefix, {_LOG_MULTIPLIER} if scales_scores else set())
    theta = _number(f"{prefix}freq_base", given.get("freq_base", DEFAULT_THETA))
    return Rope(theta, _scaling(metadata, given, prefix), 0 if size == head_dim else size)


def _scaling(metadata: Described, given: Mapping[str, Any], prefix: str) -> RopeScaling | None:
    kind = given.get("scaling.type")
    if kind not in (None, "", "none", "linear", "yarn"):
        raise LoadFailed(
            f"rope scaling '{kind}' is not supported in GGUF files; linear and yarn are "
            f"({prefix}scaling.type)"
        )
    # As llama.cpp's loader: a factor without a type is a linear one, 0 is none at all, and files
    # of before August 2023 name it otherwise.
    factor = given.get("scaling.factor", given.get("scale_linear"))
    if kind in ("linear", "yarn") and factor is None:
        factor = metadata[f"{prefix}scaling.factor"]  # which raises
    if kind == "none" or factor in (None, 0.0, 1.0):
        return None
    factor = _number(f"{prefix}scaling.factor", factor)
    if kind != "yarn":
        return RopeScaling("linear", factor)
    return RopeScaling(
        "yarn",
        factor,
        original_positions=int(metadata[f"{prefix}scaling.original_context_length"]),
        attention_factor=0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0,
        all_dim_share=given.get(_LOG_MULTIPLIER, 0.0) / 0.1,
    )


def _refuse_unread(given: Mapping[str, Any], prefix: str, further: set[str]) -> None:
    known: Iterable[str] = _READ | _ABOUT_TRAINING | further
    for name, value in given.items():
        if name not in known and value != _NEUTRAL.get(name):
            raise LoadFailed(
                f"the GGUF file has {prefix}{name} {value!r}, which changes rotary positions in a "
                "way that is not supported"
            )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise LoadFailed(f"the model's {name} is {value!r}; it must be a number above 0")
    return float(value)

"""Rotary positions as files spell them: every spelling becomes one `Rope`, and a key that would
change the result and is not used is refused.

config.json's spellings are those of transformers: `rope_parameters`, or before its version 5
`rope_scaling`, which wins where both are there; GGUF's are those of llama.cpp.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.kinds import Rope, RopeScaling

DEFAULT_THETA = 10_000.0
_OF_ANY_KIND = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings",
}  # fmt: skip
_OF_KIND = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
}
_GGUF_READ = {
    "dimension_count", "freq_base", "scaling.type", "scaling.factor", "scale_linear",
}  # fmt: skip
_GGUF_ABOUT_TRAINING = {"scaling.finetuned", "scaling.original_context_length"}
"""What a file tells of its making, which changes nothing for the kinds that are computed."""
_GGUF_NEUTRAL = {"scaling.attn_factor": 1.0}


def hub_rope(config: Described) -> Rope:
    """A config.json's. Raises LoadFailed naming the key."""
    where = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(where) or {}
    if not isinstance(given, Mapping):
        raise LoadFailed(f"config.json has {where} {given!r}; it must be an object")
    _refuse_partial(given.get("partial_rotary_factor", config.get("partial_rotary_factor")))
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in _OF_KIND:
        raise _unsupported(kind, where, "; linear and llama3 are")
    _refuse_unused(given, where, kind)
    theta = given.get("rope_theta") or config.get("rope_theta") or DEFAULT_THETA
    passed_over = (config.get("rope_parameters") or {}).get("rope_theta") or theta
    if passed_over != theta:
        raise LoadFailed(
            f"config.json has rope_parameters.rope_theta {passed_over} beside a "
            f"rope_scaling, which transformers reads in its place, with rope_theta {theta}: "
            "move rope_theta into rope_scaling"
        )
    return Rope(_number("rope_theta", theta), _hub_scaling(kind, given, where, config))


def _hub_scaling(
    kind: str, given: Mapping[str, Any], where: str, config: Described
) -> RopeScaling | None:
    if kind == "default":
        return None

    def needed(name: str) -> float:
        if given.get(name) is None:
            raise LoadFailed(f"config.json has {where} of type '{kind}' without '{name}'")
        return _number(f"{where}.{name}", given[name])

    if kind == "linear":
        return RopeScaling("linear", needed("factor"))
    original = (
        config.get("original_max_position_embeddings")
        or given.get("original_max_position_embeddings")
        or config["max_position_embeddings"]
    )
    return RopeScaling(
        "llama3",
        needed("factor"),
        needed("low_freq_factor"),
        needed("high_freq_factor"),
        int(_number("original_max_position_embeddings", original)),
    )


def _refuse_partial(rotated: Any) -> None:
    if rotated is not None and rotated != 1.0:
        raise LoadFailed(
            f"config.json has partial_rotary_factor {rotated}; models that rotate a part of each "
            "head only are not supported"
        )


def _refuse_unused(given: Mapping[str, Any], where: str, kind: str) -> None:
    used = _OF_ANY_KIND | _OF_KIND[kind]
    for name, value in given.items():
        is_neutral = value is None or (name == "factor" and value == 1.0)
        if name not in used and not is_neutral:
            raise LoadFailed(
                f"config.json has {where}.{name} {value!r}, which rotary positions of type "
                f"'{kind}' do not use: correct rope_type, or leave the key out"
            )


def gguf_rope(metadata: Described, architecture: str, head_dim: int) -> Rope:
    """A GGUF file's. Raises LoadFailed naming the key."""
    prefix = f"{architecture}.rope."
    given = {
        name.removeprefix(prefix): value
        for name, value in metadata.items()
        if name.startswith(prefix)
    }
    if given.get("dimension_count", head_dim) != head_dim:
        raise LoadFailed("models that rotate a part of each head only are not supported")
    _refuse_unread(given, prefix)
    kind = given.get("scaling.type")
    if kind not in (None, "", "none", "linear"):
        raise _unsupported(kind, f"{prefix}scaling.type", " in GGUF files; linear is")
    theta = _number(f"{prefix}freq_base", given.get("freq_base", DEFAULT_THETA))
    # As llama.cpp's loader: a factor without a type is a linear one, 0 is none at all, and files
    # of before August 2023 name it otherwise.
    factor = given.get("scaling.factor", given.get("scale_linear"))
    if kind == "linear" and factor is None:
        factor = metadata[f"{prefix}scaling.factor"]  # which raises
    if kind == "none" or factor in (None, 0.0, 1.0):
        return Rope(theta)
    return Rope(theta, RopeScaling("linear", _number(f"{prefix}scaling.factor", factor)))


def _refuse_unread(given: Mapping[str, Any], prefix: str) -> None:
    known: Iterable[str] = _GGUF_READ | _GGUF_ABOUT_TRAINING
    for name, value in given.items():
        if name not in known and value != _GGUF_NEUTRAL.get(name):
            raise LoadFailed(
                f"the GGUF file has {prefix}{name} {value!r}, which changes rotary positions in a "
                "way that is not supported"
            )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise LoadFailed(f"the model's {name} is {value!r}; it must be a number above 0")
    return float(value)


def _unsupported(kind: Any, where: str, which: str) -> LoadFailed:
    return LoadFailed(f"rope scaling '{kind}' is not supported{which} ({where})")

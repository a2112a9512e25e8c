"""What an adapter_config.json says, as far as outputs depend on it. What is not computed here is
refused by name: an adapter that is applied in part would answer wrongly and not say so."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed

CONFIG_FILE = "adapter_config.json"
_READ = frozenset({
    "alpha_pattern", "bias", "lora_alpha", "modules_to_save", "peft_type", "r", "rank_pattern",
    "task_type", "trainable_token_indices", "use_rslora",
})  # fmt: skip
_NEEDLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules", "target_parameters",
})  # fmt: skip
"""They say how an adapter was trained, or which matrices it has, which its weights say, too."""
_INSTEAD = {
    "use_dora": "DoRA scales the base's own columns; merge it into the base "
    "(PEFT: model.merge_and_unload()) and serve the result as a model",
    "lora_bias": "biases of its own",
}


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Of one adapter."""

    base: str
    """The model it was trained on, as its maker called it."""
    rank: int
    alpha: float
    is_rank_stabilised: bool
    ranks: Mapping[str, int]
    """By regular expressions of module names; the first that matches counts."""
    alphas: Mapping[str, float]
    token_ids: Mapping[str, Sequence[int]]
    """By module: the tokens whose rows the adapter replaces."""

    def rank_of(self, module: str) -> int:
        """Of a module's matrices."""
        return int(_matching(self.ranks, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """What a module's product is times."""
        alpha = float(_matching(self.alphas, module, self.alpha))
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def read_config(document: Mapping[str, Any], max_rank: int) -> AdapterConfig:
    """The config of a file. Raises LoadFailed."""
    kind = document.get("peft_type")
    if kind != "LORA":
        raise _refused("peft_type", kind, "LORA is served")
    if document.get("task_type") not in (None, "CAUSAL_LM"):
        raise _refused("task_type", document["task_type"], "CAUSAL_LM is served")
    if document.get("bias", "none") != "none":
        raise _refused("bias", document["bias"], "'none' is served: the base's biases stay")
    for name, value in document.items():
        if name not in _READ | _NEEDLESS and value not in (None, False, [], {}):
            raise _refused(name, value, _INSTEAD.get(name, "it is not computed here"))
    return AdapterConfig(
        base=str(document.get("base_model_name_or_path") or ""),
        rank=_rank(document.get("r"), "r", max_rank),
        alpha=_number(document.get("lora_alpha"), "lora_alpha"),
        is_rank_stabilised=document.get("use_rslora") is True,
        ranks=_patterns(document, "rank_pattern", lambda v, n: _rank(v, n, max_rank)),
        alphas=_patterns(document, "alpha_pattern", _number),
        token_ids=_token_ids(document.get("trainable_token_indices")),
    )


def _matching(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """As PEFT looks a module up: by the end of its name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def _patterns(document: Mapping[str, Any], name: str, checked: Any) -> dict[str, Any]:
    given = document.get(name) or {}
    if not isinstance(given, Mapping):
        raise _refused(name, given, "it must be an object")
    for pattern in given:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _refused(name, pattern, f"it is no regular expression: {error}") from error
    return {pattern: checked(value, f"{name}['{pattern}']") for pattern, value in given.items()}


def _rank(value: Any, name: str, max_rank: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refused(name, value, "it must be a whole number of at least 1")
    if value > max_rank:
        raise _refused(name, value, f"the limit is {max_rank} (model parameter max_lora_rank)")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(name, value, "it must be a number")
    return float(value)


def _token_ids(given: Any) -> dict[str, Sequence[int]]:
    """PEFT takes a list for the embedding's."""
    if given is None:
        return {}
    by_module = given if isinstance(given, Mapping) else {"embed_tokens": given}
    for ids in by_module.values():
        if not isinstance(ids, list) or not all(type(each) is int and each >= 0 for each in ids):
            raise _refused("trainable_token_indices", given, "it must be token ids")
    return dict(by_module)


def _refused(name: str, value: Any, why: str) -> LoadFailed:
    return LoadFailed(f"{CONFIG_FILE}: '{name}' is {str(value)[:100]!r}: {why}")

"""Configs of transformers' classes with other values, one key at a time: between all classes each
key that any of them has is given each of its values in a few."""

import copy
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from family_models import COUNTS, NEVER, others
from paged_models import Paged, reference
from tiny_decoders import MODEL_TYPES, VOCABULARY, decoder_of, random_model, tiny_config
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.foreign.plan import Plan
from trivet.backends.llm.foreign.planning import plan_model
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.steps.runner import Model

LENGTHS = (45, 9)
"""Beyond the windows of small models, and within."""
STEPS = [(30, 5), (14, 0), (1, 4)]
PROMPTS = [[(7 * place + 3 * length) % VOCABULARY for place in range(length)] for length in LENGTHS]
NUM_CLASSES = 2
"""That a key is varied in; of a key of many classes those differ from value to value."""
TOLERANCE = 1e-3
_LAYERS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}
_SAID_ELSEWHERE = {
    "transformers_version", "model_type", "name_or_path", "attn_implementation", "dtype",
    "tie_word_embeddings", "gradient_checkpointing", "pretraining_tp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """A class whose config has another value."""

    model_type: str
    key: str
    value: Any


def all_variants() -> Iterator[Variant]:
    """Of all classes together, always the same."""
    holders: dict[str, list[tuple[str, Any]]] = {}
    for model_type in MODEL_TYPES:
        for key, value in _keys(model_type):
            holders.setdefault(key, []).append((model_type, value))
    for key, having in sorted(holders.items()):
        for turn in range(min(NUM_CLASSES, len(having))):
            place = (zlib.crc32(key.encode()) + turn * 7919) % len(having)
            model_type, value = having[place]
            for other in others(key, value):
                yield Variant(model_type, key, other)


def _keys(model_type: str) -> Iterator[tuple[str, Any]]:
    try:
        _, config = decoder_of(tiny_config(model_type))
    except Exception:  # noqa: BLE001  # whatever its code says of what cannot be made
        return
    for key, value in config.to_dict().items():
        is_size = key in COUNTS and key not in _LAYERS
        if key not in NEVER | _SAID_ELSEWHERE and not is_size and not key.endswith("_token_id"):
            yield key, value


def outcome(variant: Variant) -> str:
    """`exact`, `refused: why`, or `none` where transformers makes no such model. Fails where it is
    computed and gives something else."""
    try:
        model = _made(variant)
        wanted = reference(model, PROMPTS)
    except Exception:  # noqa: BLE001  # whatever transformers says
        return "none"
    if not all(bool(each.isfinite().all()) for each in wanted):
        return "none"
    try:
        plan = plan_model(model, torch.float32, 8)
    except LoadFailed as error:
        return f"refused: {error}"
    if plan.config.max_positions < max(LENGTHS):
        return f"refused: beyond {plan.config.max_positions} positions"
    for found, theirs in zip(_computed(plan), wanted, strict=True):
        scale = max(1.0, float(theirs.std()))
        assert (found - theirs).abs().max() < TOLERANCE * scale, f"silently wrong: {variant}"
    return "exact"


def _made(variant: Variant) -> Any:
    kind, plain = decoder_of(tiny_config(variant.model_type))
    values = copy.deepcopy(plain.to_dict()) | {variant.key: variant.value}
    return random_model(kind, type(plain).from_dict(values))


def _computed(plan: Plan) -> list[Tensor]:
    def make(config: LlmConfig, _: Mapping[str, Stored], cache: KvCache) -> Model:
        return plan.make(cache, TorchAttention(cache, config.attentions))

    like = {"": torch.empty(0)}
    return Paged(plan.config, like, 16, LENGTHS, make).run(PROMPTS, STEPS)

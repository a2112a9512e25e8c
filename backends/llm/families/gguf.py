"""GGUF metadata read as if they were a config.json, so that a family is read once. A key that
nobody reads is refused: it may change the result.

What llama.cpp does of its own accord for an architecture stands in the family's GgufKeys.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import GgufReader, HubReader
from trivet.backends.llm.families.gguf_rope import gguf_rope
from trivet.backends.llm.families.rope import DEFAULT_THETA

_USUAL = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}
"""GGUF's keys without the architecture, and config.json's."""
_SAYS_NOTHING = {"vocab_size", "attention.causal", "tensor_data_layout", "pooling_type"}
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GgufKeys:
    """How an architecture's metadata differ from what most say."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    """Further keys, or other names for usual ones; an empty name for what says nothing new."""
    biases: Mapping[str, str] = field(default_factory=dict)
    """Keys of config.json that are true where layer 0 has a tensor."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What files do not say, and llama.cpp knows."""
    derived: Callable[[Values], Values] = dict
    """What follows from the others: further values."""
    rotates_part: bool = False
    is_typed: bool = False
    """Rotary positions are those of layers that see all; the others have usual ones."""
    has_rope: bool = True
    scales_scores: bool = False
    """By YaRN's mscale_all_dim."""
    rope: Mapping[str, Any] = field(default_factory=dict)
    """What of scaled rotary positions files do not say."""


def gguf_reader(from_hub: HubReader, architecture: str, keys: GgufKeys) -> GgufReader:
    """A family's."""

    def read(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
        return from_hub(as_in_hub(metadata, tensor_names, architecture, keys))

    return read


def as_in_hub(
    metadata: Described, tensor_names: Container[str], architecture: str, keys: GgufKeys
) -> Described:
    """What a config.json would say. Raises LoadFailed for a key that is not known."""
    spelled = {ours: f"{architecture}.{own}" for own, ours in _names(keys).items()}
    values = Described(_values(metadata, architecture, keys), "the GGUF file", spelled)
    values |= {name: f"blk.0.{tensor}" in tensor_names for name, tensor in keys.biases.items()}
    values["tie_word_embeddings"] = "output.weight" not in tensor_names
    values |= keys.constants
    values |= keys.derived(values)
    if keys.has_rope:
        values |= _rope(metadata, architecture, values, keys)
    return values


def _names(keys: GgufKeys) -> dict[str, str]:
    """Of an architecture's keys, and config.json's."""
    return {**_USUAL, **keys.renamed}


def _values(metadata: Described, architecture: str, keys: GgufKeys) -> Values:
    """Raises LoadFailed for a key that is not known."""
    names = _names(keys)
    values: Values = {"vocab_size": len(metadata["tokenizer.ggml.tokens"])}
    prefix = f"{architecture}."
    for name, value in metadata.items():
        own = name.removeprefix(prefix)
        is_of_rope = own.startswith("rope.") and own not in keys.renamed
        if not name.startswith(prefix) or is_of_rope:
            continue
        if own in _SAYS_NOTHING:
            continue
        if own == "attention.value_length" and own not in keys.renamed:
            _refuse_other_values(metadata, prefix, value)
            continue
        if own not in names:
            raise LoadFailed(
                f"the GGUF file has {name} {str(value)[:64]}, which is not known of models of this "
                "architecture and may change what they give"
            )
        if names[own]:
            values[names[own]] = value
    return values


def _refuse_other_values(metadata: Described, prefix: str, length: Any) -> None:
    if length != metadata.get(f"{prefix}attention.key_length", length):
        raise LoadFailed(
            f"the GGUF file has {prefix}attention.value_length {length}, other than its keys; only "
            "values as long as keys are computed"
        )


def _rope(metadata: Described, architecture: str, values: Values, keys: GgufKeys) -> Values:
    """As config.json would have it."""
    head_dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    local = f"{architecture}.rope.freq_base_swa"
    local_theta = metadata.get(local, DEFAULT_THETA)
    metadata = metadata.without(local) if keys.is_typed else metadata
    rope = gguf_rope(
        metadata,
        architecture,
        head_dim,
        is_partial=keys.rotates_part,
        scales_scores=keys.scales_scores,
    )
    given: Values = {"rope_theta": rope.theta}
    if keys.rotates_part:
        # A bit more than the share, which is cut down to a whole number again.
        given["partial_rotary_factor"] = ((rope.size or head_dim) + 0.25) / head_dim
    scaling = rope.scaling
    if scaling is not None:
        if scaling.all_dim_share:
            share = scaling.all_dim_share
            given |= {"mscale": share, "mscale_all_dim": share}
        given |= {"rope_type": scaling.kind, "factor": scaling.factor, **keys.rope}
        if scaling.kind == "yarn":
            given["original_max_position_embeddings"] = scaling.original_positions
    if keys.is_typed:
        own = {"rope_theta": local_theta}
        return {"rope_parameters": {"full_attention": given, "sliding_attention": own}}
    return {"rope_parameters": given}

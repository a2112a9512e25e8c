"""What a family's weights are called in files, and how ranks share each of them out."""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any


class Role(StrEnum):
    """What a weight is for."""

    EMBEDDING = "embedding"
    POSITIONS = "positions"
    EMBEDDING_NORM = "embedding norm"
    FINAL_NORM = "final norm"
    HEAD = "head"
    ATTENTION_NORM = "attention norm"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    QUERY_NORM = "query norm"
    KEY_NORM = "key norm"
    OUTPUT = "output"
    SINKS = "attention sinks"
    QUERY_DOWN = "way to the queries' latent"
    QUERY_DOWN_NORM = "norm of the queries' latent"
    LATENT = "latent of keys and values"
    LATENT_NORM = "norm of the latent"
    LATENT_UP = "way from the latent"
    ATTENTION_POST_NORM = "norm behind attention"
    MLP_NORM = "MLP norm"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    MLP_POST_NORM = "norm behind the MLP"
    ROUTER = "router"
    CORRECTION = "correction of a router's scores"
    EXPERT_GATE = "experts' gate"
    EXPERT_UP = "experts' up"
    EXPERT_DOWN = "experts' down"
    SHARED_GATE = "shared expert's gate"
    SHARED_UP = "shared expert's up"
    SHARED_DOWN = "shared expert's down"
    SHARED_SHARE = "shared expert's share"


class Share(Enum):
    """A sharding rule: which part of a weight [outputs, inputs] a rank holds (Shoeybi et al.,
    Megatron-LM, 2019)."""

    WHOLE = "all of it"
    OUTPUTS = "its part of the outputs"
    HEADS = "its heads' outputs; key/value heads that are fewer than the ranks are held by several"
    INPUTS = "its part of the inputs; the bias is rank 0's, for the sum over all holds it once"
    TOKENS = "its part of the vocabulary, of which the last may be smaller"


@dataclass(frozen=True, slots=True)
class WeightName:
    """One weight of a file; its bias is beside it."""

    roles: tuple[Role, ...]
    """Several where a file joins matrices that read the same input, one above the other."""
    hub: str
    """In Hugging Face's files, without the `.weight` behind it; `{layer}` is the layer's number,
    `{expert}` the expert's."""
    gguf: str
    """In GGUF files, where all experts of a layer are one tensor; empty if there is none."""
    share: Share = Share.WHOLE
    is_transposed: bool = False
    """Hugging Face's files have it as [inputs, outputs] (GPT-2's Conv1D)."""
    groups_heads: bool = False
    """Hugging Face's files have the queries, the key and the value of each key/value head together;
    GGUF's have all queries, all keys, all values."""
    interleaves: bool = False
    """Hugging Face's files, and GGUF's, have it for a rotation of neighbours instead of halves."""
    gguf_interleaves: bool = False
    """GGUF's converters interleave the two halves of each of its heads, for a rotation of
    neighbours instead of halves."""
    gguf_offset: float = 0.0
    """GGUF's converters have added it."""
    is_bare: bool = False
    """Hugging Face's files call it so, without an ending."""
    first_layer: int = 0
    """The number that files give to what is layer 0 here; see `Names.from_layer`."""

    @property
    def is_of_experts(self) -> bool:
        """Whether each expert has one."""
        return "{expert}" in self.hub

    def in_hub(self, layer: int, expert: int = 0) -> str:
        """The name in Hugging Face's files, for a layer and an expert."""
        return self.hub.format(layer=self.first_layer + layer, expert=expert)

    def whole_in_hub(self, ending: str, layer: int, expert: int = 0) -> str:
        """The same with its ending, if it has one."""
        name = self.in_hub(layer, expert)
        return name if self.is_bare else f"{name}.{ending}"


@dataclass(frozen=True, slots=True)
class StackedExperts:
    """Hugging Face's files have the matrices of all experts of a layer as one tensor [experts,
    inputs, outputs], and their biases beside it as one that ends with `_bias`."""

    hub: str
    """Its whole name; `{layer}` is the layer's number."""
    roles: tuple[Role, ...]
    """What each expert's weights would be for; of several, the outputs alternate."""


_SHARES = {
    Share.TOKENS: {Role.EMBEDDING, Role.HEAD},
    Share.HEADS: {Role.QUERY, Role.KEY, Role.VALUE, Role.SINKS, Role.LATENT_UP},
    Share.INPUTS: {Role.OUTPUT, Role.DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN},
    Share.OUTPUTS: {
        Role.GATE, Role.UP, Role.EXPERT_GATE, Role.EXPERT_UP, Role.SHARED_GATE, Role.SHARED_UP,
    },
}  # fmt: skip
_OF_BLOCK = {
    (Role.ATTENTION_NORM,): "attn_norm",
    (Role.QUERY,): "attn_q",
    (Role.KEY,): "attn_k",
    (Role.VALUE,): "attn_v",
    (Role.QUERY, Role.KEY, Role.VALUE): "attn_qkv",
    (Role.QUERY_NORM,): "attn_q_norm",
    (Role.KEY_NORM,): "attn_k_norm",
    (Role.OUTPUT,): "attn_output",
    (Role.SINKS,): "attn_sinks",
    (Role.QUERY_DOWN,): "attn_q_a",
    (Role.QUERY_DOWN_NORM,): "attn_q_a_norm",
    (Role.LATENT,): "attn_kv_a_mqa",
    (Role.LATENT_NORM,): "attn_kv_a_norm",
    (Role.LATENT_UP,): "attn_kv_b",
    (Role.ATTENTION_POST_NORM,): "post_attention_norm",
    (Role.MLP_NORM,): "ffn_norm",
    (Role.GATE,): "ffn_gate",
    (Role.UP,): "ffn_up",
    (Role.GATE, Role.UP): "ffn_up",
    (Role.DOWN,): "ffn_down",
    (Role.MLP_POST_NORM,): "post_ffw_norm",
    (Role.ROUTER,): "ffn_gate_inp",
    (Role.CORRECTION,): "exp_probs_b",
    (Role.EXPERT_GATE,): "ffn_gate_exps",
    (Role.EXPERT_UP,): "ffn_up_exps",
    (Role.EXPERT_DOWN,): "ffn_down_exps",
    (Role.SHARED_GATE,): "ffn_gate_shexp",
    (Role.SHARED_UP,): "ffn_up_shexp",
    (Role.SHARED_DOWN,): "ffn_down_shexp",
    (Role.SHARED_SHARE,): "ffn_gate_inp_shexp",
}
_GGUF = {
    (Role.EMBEDDING,): "token_embd",
    (Role.EMBEDDING_NORM,): "token_embd_norm",
    (Role.POSITIONS,): "position_embd",
    (Role.FINAL_NORM,): "output_norm",
    (Role.HEAD,): "output",
    **{roles: f"blk.{{layer}}.{name}" for roles, name in _OF_BLOCK.items()},
}


def weight(hub: str, *roles: Role, **own: Any) -> WeightName:
    """A weight that GGUF's files call as they usually call one of its roles, and that is shared out
    as such a one usually is."""
    share = next((share for share, its in _SHARES.items() if roles[0] in its), Share.WHOLE)
    given: dict[str, Any] = {"gguf": _GGUF.get(roles, ""), "share": share}
    return WeightName(roles, hub, **given | own)


@dataclass(frozen=True, slots=True)
class Names:
    """All that a family's files may hold."""

    weights: tuple[WeightName, ...]
    needless: tuple[str, ...] = ()
    """Endings of names that are read by nobody: what old files keep beside the weights."""
    cache_scales: str = ""
    """What files that are calibrated for a cache of 8 bits divide it by; `{layer}`, and `{kind}`,
    which is k or v."""
    stacked: tuple[StackedExperts, ...] = ()
    """What stands for experts' weights, where files have all of a layer as one."""
    rope_divisors: str = ""
    """What divides rotary frequencies in GGUF files: Llama 3's scaling, worked out in advance."""
    first_layer: int = 0
    """The number that files give to what is layer 0 here."""

    def from_layer(self, first: int) -> "Names":
        """The same of a model that begins with a later layer."""
        weights = tuple(replace(each, first_layer=first) for each in self.weights)
        return replace(self, weights=weights, first_layer=first)

    def cache_scale(self, layer: int, kind: str) -> str:
        """Of a layer's keys or values; see `cache_scales`."""
        return self.cache_scales.format(layer=self.first_layer + layer, kind=kind)

    def having(self, *weights: WeightName, **own: Any) -> "Names":
        """These names, but for the roles of `weights`."""
        roles = {role for weight in weights for role in weight.roles}
        kept = (weight for weight in self.weights if not roles.intersection(weight.roles))
        return replace(self, weights=(*kept, *weights), **own)

    def of(self, role: Role) -> WeightName:
        """The weight that has a role, alone or with others. Raises LookupError where the family
        names none, which is a mistake in its declaration."""
        for name in self.weights:
            if role in name.roles:
                return name
        raise LookupError(f"the family names no weight for its {role.value}")

    def of_gguf(self, name: str) -> WeightName | None:
        """The weight of a GGUF name with `{layer}` for its layer."""
        return next((weight for weight in self.weights if weight.gguf == name), None)

"""The kinds of things that layers are made of. A family declares them; an implementation says which
it computes.

Whatever a kind can be is a Need: a field that changes what is computed adds one where it is set, so
that an implementation that has never heard of it is passed over instead of giving wrong numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from trivet.backends.llm.families.names import Role
from trivet.backends.llm.families.needs import Need


class Arrangement(StrEnum):
    """How attention, MLP and norms follow each other in a layer."""

    PRE_NORM = "pre-norm"
    """x += attention(norm(x)), then x += mlp(norm(x)) (Xiong et al., 2020)."""
    POST_NORM = "post-norm"
    """x += norm(attention(x)), then x += norm(mlp(x)) (OLMo 2)."""
    SANDWICH = "sandwich"
    """x += norm(attention(norm(x))), then x += norm(mlp(norm(x))) (Gemma 2)."""
    PARALLEL = "parallel"
    """x += attention(norm(x)) + mlp(the same norm(x)) (GPT-J)."""
    PARALLEL_NORMS = "parallel norms"
    """x += attention(norm(x)) + mlp(another norm(x)) (GPT-NeoX)."""


class Activation(StrEnum):
    """Between an MLP's products."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    """GELU by its formula with tanh; GPT-2's `gelu_new`."""
    GELU_SIGMOID = "gelu_sigmoid"
    """GELU by sigmoid(1.702 x)."""
    RELU = "relu"
    RELU_SQUARED = "relu_squared"


class Scoring(StrEnum):
    """How a router's logits become shares."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    """Experts are chosen by it and a correction, which their shares do not have (DeepSeek-V3)."""


class NormSpan(StrEnum):
    """What a norm of queries and keys is taken over."""

    HEAD = "each head, all by the same weights"
    OWN = "each head, by weights of its own"
    ALL = "all heads as one vector"


_ARRANGEMENTS = {
    Arrangement.PRE_NORM: Need.PRE_NORM,
    Arrangement.POST_NORM: Need.POST_NORM,
    Arrangement.SANDWICH: Need.SANDWICH,
    Arrangement.PARALLEL: Need.PARALLEL,
    Arrangement.PARALLEL_NORMS: Need.PARALLEL_NORMS,
}
_ACTIVATIONS = {
    Activation.SILU: Need.SILU,
    Activation.GELU: Need.GELU,
    Activation.GELU_TANH: Need.GELU_TANH,
    Activation.GELU_SIGMOID: Need.GELU_SIGMOID,
    Activation.RELU: Need.RELU,
    Activation.RELU_SQUARED: Need.RELU_SQUARED,
}
_SPANS = {NormSpan.OWN: Need.OWN_HEAD_NORMS, NormSpan.ALL: Need.JOINT_HEAD_NORMS}


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """x / rms(x) * (offset + weight), summed in float32 (Zhang, Sennrich, 2019)."""

    eps: float
    offset: float = 0.0
    """1 in Gemma, whose weights say by how much they differ from 1."""

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.RMS_NORM
        if self.offset:
            yield Need.NORM_OFFSET


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean) / deviation * (offset + weight) + bias (Ba, Kiros, Hinton, 2016)."""

    eps: float
    has_bias: bool = True
    has_weight: bool = True
    """Without one it is 1, in the place where weights are taken: no Need."""
    offset: float = 0.0

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.LAYER_NORM
        if self.has_bias:
            yield Need.NORM_BIAS
        if self.offset:
            yield Need.NORM_OFFSET


Norm = RmsNorm | LayerNorm


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are changed for longer contexts; which fields count is the kind's
    (`models/rotary.py`)."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncates: bool = True
    attention_factor: float = 1.0
    """What cosines and sines are multiplied by."""
    divisors: tuple[float, ...] = ()
    """Of each frequency."""
    long_divisors: tuple[float, ...] = ()
    """Of longer sequences than before."""
    all_dim_share: float = 0.0
    """YaRN's mscale_all_dim, by which DeepSeek's scores grow."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions, of halves of a head (Su et al., RoFormer, 2021; GPT-NeoX' order)."""

    theta: float
    scaling: RopeScaling | None = None
    size: int = 0
    """How much of a head is rotated, from its beginning; 0: all."""


@dataclass(frozen=True, slots=True)
class Latent:
    """How queries, keys and values are made of small vectors, and attended to by those (multi-head
    latent attention: DeepSeek-V2, 2024): a token's latent is the key and the value that all heads
    share, and queries are brought to where it lies. Of its GroupedAttention a head is what is
    rotated and then the latent; that is cached once."""

    rank: int
    """Numbers of the latent, without what is rotated."""
    query_rank: int
    """Numbers of the vector that queries are made of; 0: they are made of the states."""
    plain_size: int
    """How much of a query is not rotated."""
    value_size: int
    """Of what the output is made of, for each head."""
    norm: RmsNorm
    """Of both vectors."""


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Causal attention, whose query heads share key/value heads in groups."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope | None
    window: int = 0
    """Tokens that a token sees, itself included; 0: all."""
    head_norm: Norm | None = None
    """Of query and key heads, before they are rotated."""
    norm_span: NormSpan = NormSpan.HEAD
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    score_multiplier: float | None = None
    """None: the usual one. A number that all implementations ask for (`scale`): no Need."""
    score_cap: float = 0.0
    """Scores become cap * tanh(score / cap) (Gemma 2); 0: they stay."""
    slopes: tuple[float, ...] = ()
    """For each head what is taken from a score for each token between (ALiBi: Press et al., 2022).
    """
    qkv_clip: float = 0.0
    """Queries, keys and values are brought between its negative and itself; 0: they stay."""
    has_sinks: bool = False
    """Each head has a score that no token has, and which takes its share (gpt-oss)."""
    latent: Latent | None = None

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        usual = 1 / math.sqrt(self.head_dim)
        return usual if self.score_multiplier is None else self.score_multiplier

    @property
    def rotary_size(self) -> int:
        """How much of a head is rotated."""
        return self.rope.size or self.head_dim if self.rope else 0

    @property
    def num_cached(self) -> int:
        """Vectors of a token and key/value head in the cache: key and value, or one for both."""
        return 1 if self.latent else 2

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers the first products give."""
        if self.latent is not None:
            query = self.rotary_size + self.latent.plain_size
            return {Role.QUERY: self.num_heads * query, Role.LATENT: self.head_dim}
        states = self.num_kv_heads * self.head_dim
        return {Role.QUERY: self.num_heads * self.head_dim, Role.KEY: states, Role.VALUE: states}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.ROTARY if self.rope else Need.UNROTATED
        flags = {
            Need.PARTIAL_ROTARY: self.rope and self.rope.size,
            Need.WINDOW: self.window,
            Need.HEAD_NORMS: self.head_norm,
            Need.QKV_BIAS: self.has_qkv_bias,
            Need.OUTPUT_BIAS: self.has_output_bias,
            Need.SCORE_CAP: self.score_cap,
            Need.LINEAR_BIASES: self.slopes,
            Need.QKV_CLIP: self.qkv_clip,
            Need.SINKS: self.has_sinks,
            Need.LATENT: self.latent,
        }
        yield from (need for need, is_there in flags.items() if is_there)
        if self.head_norm is not None:
            yield from self.head_norm.needs()
        if self.norm_span in _SPANS:
            yield _SPANS[self.norm_span]


@dataclass(frozen=True, slots=True)
class GatedMlp:
    """down(activation(gate(x)) * up(x)) (Shazeer, GLU Variants, 2020)."""

    intermediate_size: int
    activation: Activation = Activation.SILU
    has_bias: bool = False
    limit: float = 0.0
    """The gate is brought below it, and what it lets through between its negative and itself
    (gpt-oss); 0: they stay."""
    up_offset: float = 0.0
    """What is added to what the gate lets through."""

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers the first products give."""
        return {Role.GATE: self.intermediate_size, Role.UP: self.intermediate_size}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.GATED_MLP
        yield _ACTIVATIONS[self.activation]
        flags = {
            Need.MLP_BIAS: self.has_bias,
            Need.MLP_LIMIT: self.limit,
            Need.UP_OFFSET: self.up_offset,
        }
        yield from (need for need, is_there in flags.items() if is_there)

    def widths(self) -> Iterator[int]:
        """What ranks share out."""
        yield self.intermediate_size

    def part(self, size: int) -> "GatedMlp":
        """What each of `size` ranks computes."""
        return replace(self, intermediate_size=self.intermediate_size // size)


@dataclass(frozen=True, slots=True)
class PlainMlp:
    """down(activation(up(x)))."""

    intermediate_size: int
    activation: Activation = Activation.GELU
    has_bias: bool = True

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers the first product gives."""
        return {Role.UP: self.intermediate_size}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.PLAIN_MLP
        yield _ACTIVATIONS[self.activation]
        if self.has_bias:
            yield Need.MLP_BIAS

    def widths(self) -> Iterator[int]:
        """What ranks share out."""
        yield self.intermediate_size

    def part(self, size: int) -> "PlainMlp":
        """What each of `size` ranks computes."""
        return replace(self, intermediate_size=self.intermediate_size // size)


@dataclass(frozen=True, slots=True)
class ExpertMlp:
    """The sum of the experts that a router likes best, each by its share (Shazeer et al., 2017;
    Fedus et al., Switch Transformers, 2021)."""

    num_experts: int
    num_active: int
    """For each token."""
    expert: GatedMlp
    is_normalised: bool = True
    """Whether the shares of those that are chosen are made to add up to 1."""
    shared: GatedMlp | None = None
    """What all tokens pass besides."""
    has_share: bool = True
    """Whether they pass it by a share of its own (Qwen2-MoE)."""
    scoring: Scoring = Scoring.SOFTMAX
    multiplier: float = 1.0
    """Of the shares. Who computes experts asks for it, as for their numbers: no Need."""
    num_groups: int = 1
    """Experts are in so many groups of equal size, of which the best are chosen first."""
    num_active_groups: int = 1
    num_telling: int = 2
    """So many of a group's scores say how good it is, its best ones: no Need, see `multiplier`."""
    has_router_bias: bool = False
    has_exact_router: bool = False
    """Whether it computes in float32, and shares stay that: of hundreds of experts, many are liked
    almost alike. Who computes experts asks for it: no Need."""
    has_exact_shares: bool = False
    """Whether shares stay in float32 though the router does not compute in it (Mixtral): no Need,
    see `has_exact_router`."""

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers one expert's first products give."""
        size = self.expert.intermediate_size
        return {Role.EXPERT_GATE: size, Role.EXPERT_UP: size}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.EXPERTS
        yield from self.expert.needs()
        if self.scoring is Scoring.SIGMOID:
            yield Need.SIGMOID_ROUTER
        if self.num_groups > 1:
            yield Need.EXPERT_GROUPS
        if self.has_router_bias:
            yield Need.ROUTER_BIAS
        if self.shared is not None:
            yield Need.SHARED_BY_SHARE if self.has_share else Need.SHARED_EXPERT
            yield from self.shared.needs()

    def widths(self) -> Iterator[int]:
        """What ranks share out."""
        yield from self.expert.widths()
        if self.shared is not None:
            yield from self.shared.widths()

    def part(self, size: int) -> "ExpertMlp":
        """What each of `size` ranks computes: a part of every expert."""
        shared = self.shared.part(size) if self.shared else None
        return replace(self, expert=self.expert.part(size), shared=shared)


Mlp = GatedMlp | PlainMlp | ExpertMlp


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model."""

    attention: GroupedAttention
    mlp: Mlp
    norm: Norm
    arrangement: Arrangement = Arrangement.PRE_NORM
    residual_multiplier: float = 1.0
    """What attention and MLP add is multiplied by it (Granite)."""

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield _ARRANGEMENTS[self.arrangement]
        if self.residual_multiplier != 1.0:
            yield Need.RESIDUAL_MULTIPLIER
        for kind in (self.norm, self.attention, self.mlp):
            yield from kind.needs()

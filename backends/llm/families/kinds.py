"""The kinds of things that layers are made of. A family declares them; an implementation says which
it computes.

Whatever a kind can be is a Need: a field that changes what is computed adds one where it is set, so
that an implementation that has never heard of it is passed over instead of giving wrong numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from trivet.backends.llm.families.names import Role


class Need(StrEnum):
    """What must be computed for a model, in the words in which it is refused."""

    PRE_NORM = "norms before attention and MLP"
    RMS_NORM = "RMS norms"
    LAYER_NORM = "layer norms"
    NORM_BIAS = "biases of norms"
    ROTARY = "rotary positions"
    UNROTATED = "attention without rotary positions"
    LEARNED_POSITIONS = "learned positions"
    WINDOW = "a sliding window"
    QKV_BIAS = "biases of queries, keys and values"
    OUTPUT_BIAS = "a bias of attention's output"
    HEAD_NORMS = "norms of query and key heads"
    GATED_MLP = "gated MLPs"
    PLAIN_MLP = "MLPs without a gate"
    MLP_BIAS = "biases of the MLP"
    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu by tanh"
    DIFFERENT_LAYERS = "layers that differ"
    FOREIGN = "architecture of transformers' own classes"


class Arrangement(StrEnum):
    """How attention, MLP and norms follow each other in a layer."""

    PRE_NORM = "pre-norm"
    """x += attention(norm(x)), then x += mlp(norm(x)) (Xiong et al., 2020)."""


class Activation(StrEnum):
    """Between an MLP's products."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    """GELU by its formula with tanh; GPT-2's `gelu_new`."""


_ARRANGEMENTS = {Arrangement.PRE_NORM: Need.PRE_NORM}
_ACTIVATIONS = {
    Activation.SILU: Need.SILU,
    Activation.GELU: Need.GELU,
    Activation.GELU_TANH: Need.GELU_TANH,
}


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """x / rms(x) * weight, summed in float32 (Zhang, Sennrich, 2019)."""

    eps: float

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.RMS_NORM


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean) / deviation * weight + bias (Ba, Kiros, Hinton, 2016)."""

    eps: float
    has_bias: bool = True

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.LAYER_NORM
        if self.has_bias:
            yield Need.NORM_BIAS


Norm = RmsNorm | LayerNorm


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are changed for longer contexts: linear, or Llama 3's way."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions, of halves of a head (Su et al., RoFormer, 2021; GPT-NeoX' order)."""

    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Causal attention, whose query heads share key/value heads in groups."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: Rope | None
    window: int = 0
    """Tokens that a token sees, itself included; 0: all."""
    head_norm: RmsNorm | None = None
    """Of each query and key head, before it is rotated."""
    has_qkv_bias: bool = False
    has_output_bias: bool = False

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.head_dim)

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers the first products give."""
        states = self.num_kv_heads * self.head_dim
        return {Role.QUERY: self.num_heads * self.head_dim, Role.KEY: states, Role.VALUE: states}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.ROTARY if self.rope else Need.UNROTATED
        flags = {
            Need.WINDOW: self.window,
            Need.HEAD_NORMS: self.head_norm,
            Need.QKV_BIAS: self.has_qkv_bias,
            Need.OUTPUT_BIAS: self.has_output_bias,
        }
        yield from (need for need, is_there in flags.items() if is_there)


@dataclass(frozen=True, slots=True)
class GatedMlp:
    """down(activation(gate(x)) * up(x)) (Shazeer, GLU Variants, 2020)."""

    intermediate_size: int
    activation: Activation = Activation.SILU
    has_bias: bool = False

    @property
    def outputs(self) -> dict[Role, int]:
        """How many numbers the first products give."""
        return {Role.GATE: self.intermediate_size, Role.UP: self.intermediate_size}

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield Need.GATED_MLP
        yield _ACTIVATIONS[self.activation]
        if self.has_bias:
            yield Need.MLP_BIAS


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


Mlp = GatedMlp | PlainMlp


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model."""

    attention: GroupedAttention
    mlp: Mlp
    norm: Norm
    arrangement: Arrangement = Arrangement.PRE_NORM

    def needs(self) -> Iterator[Need]:
        """See Need."""
        yield _ARRANGEMENTS[self.arrangement]
        for kind in (self.norm, self.attention, self.mlp):
            yield from kind.needs()

"""Any model whose kinds have a piece in torch, composed of them layer by layer.

This says what the other implementations must give.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trivet.backends.llm.attention.base import Attention, StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import GroupedAttention, Rope
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.models.arrangements import ARRANGEMENTS, LayerFunction
from trivet.backends.llm.models.heads import Turn, Turns
from trivet.backends.llm.models.norms import NormFunction, make_norm
from trivet.backends.llm.models.parts import take_norm
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.models.vocabulary import Vocabulary, handed_on
from trivet.backends.llm.weights.taking import Weights

COMPUTES = frozenset({
    Need.PRE_NORM, Need.POST_NORM, Need.SANDWICH, Need.PARALLEL, Need.PARALLEL_NORMS,
    Need.RESIDUAL_MULTIPLIER, Need.RMS_NORM, Need.LAYER_NORM, Need.NORM_BIAS, Need.NORM_OFFSET,
    Need.ROTARY, Need.PARTIAL_ROTARY, Need.UNROTATED, Need.LEARNED_POSITIONS, Need.LINEAR_BIASES,
    Need.WINDOW, Need.SCORE_CAP, Need.SINKS, Need.LATENT, Need.QKV_BIAS, Need.QKV_CLIP,
    Need.OUTPUT_BIAS, Need.HEAD_NORMS,
    Need.OWN_HEAD_NORMS, Need.JOINT_HEAD_NORMS, Need.GATED_MLP, Need.PLAIN_MLP, Need.EXPERTS,
    Need.SIGMOID_ROUTER, Need.EXPERT_GROUPS, Need.SHARED_EXPERT, Need.SHARED_BY_SHARE,
    Need.ROUTER_BIAS, Need.MLP_BIAS, Need.MLP_LIMIT, Need.UP_OFFSET, Need.SILU, Need.GELU,
    Need.GELU_TANH, Need.GELU_SIGMOID,
    Need.RELU, Need.RELU_SQUARED, Need.EMBEDDING_MULTIPLIER, Need.EMBEDDING_NORM, Need.HEAD_BIAS,
    Need.LOGIT_MULTIPLIER, Need.LOGIT_CAP, Need.DIFFERENT_LAYERS,
})  # fmt: skip
"""See Implementation."""


class TorchDecoder:
    """A decoder over the paged cache. Owned by the engine's thread."""

    is_recordable = False
    """Plain torch asks the device for lengths."""

    def __init__(self, weights: Weights, attention: Attention) -> None:
        """Raises LoadFailed when a weight is missing, of the wrong shape or not known."""
        config = weights.config
        self._attention = attention
        self._vocabulary = Vocabulary(weights)
        self._begin: Callable[[StepInputs], Tensor] = handed_on
        if config.is_first:
            self._begin = _Embedding(weights, self._vocabulary)
        tables: dict[tuple[Rope, int], Turns] = {}
        self._layers: list[tuple[LayerFunction, int]] = []
        """Each with the place of its table in `_tables`, -1 where it has none."""
        for index, kind in enumerate(config.layers):
            place = -1
            if kind.attention.rope is not None:
                key = kind.attention.rope, kind.attention.head_dim
                if key not in tables:
                    tables[key] = self._turns(weights, kind.attention)
                place = list(tables).index(key)
            made = ARRANGEMENTS[kind.arrangement](weights, attention, index)
            self._layers.append((made, place))
        self._tables = list(tables.values())
        self._end = _Head(weights, self._vocabulary) if config.is_last else None
        weights.refuse_rest()

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._attention.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`; see Model."""
        states = self._begin(inputs)
        turns: list[Turn | None] = [table.at(inputs.positions) for table in self._tables]
        turns.append(None)  # at -1: of layers that are not rotated
        self._attention.begin(inputs)
        for layer, place in self._layers:
            states = layer(states, turns[place])
        return states if self._end is None else self._end(states, inputs)

    def _turns(self, weights: Weights, kind: GroupedAttention) -> Turns:
        dtype, device = self._vocabulary.dtype, self._vocabulary.device
        num_positions = weights.config.max_positions
        cosines, sines = rotary_table(kind, num_positions, dtype, weights.rope_divisors())
        return Turns(cosines.to(device), sines.to(device))


class _Embedding:
    """Tokens to what the first layer reads."""

    def __init__(self, weights: Weights, vocabulary: Vocabulary) -> None:
        config = weights.config
        self._vocabulary = vocabulary
        self._multiplier: Tensor | None = None
        if config.embedding_multiplier != 1.0:
            # Rounded to what states are of, as models that have one were trained.
            self._multiplier = torch.tensor(
                config.embedding_multiplier, dtype=vocabulary.dtype, device=vocabulary.device
            )
        self._positions: Tensor | None = None
        self._first = config.first_position
        if config.has_learned_positions:
            rows = config.max_positions + self._first
            self._positions = weights.table(Role.POSITIONS, rows)
        self._norm: NormFunction | None = None
        if config.embedding_norm is not None:
            taken = take_norm(weights, config.embedding_norm, Role.EMBEDDING_NORM)
            self._norm = make_norm(config.embedding_norm, taken)

    def __call__(self, inputs: StepInputs) -> Tensor:
        """[N, hidden]."""
        states = self._vocabulary.embed(inputs.token_ids)
        if self._multiplier is not None:
            states = states * self._multiplier
        if self._positions is not None:
            states = states + self._positions[inputs.positions + self._first]
        return states if self._norm is None else self._norm(states)


class _Head:
    """What the last layer gives to logits."""

    def __init__(self, weights: Weights, vocabulary: Vocabulary) -> None:
        config = weights.config
        self._vocabulary = vocabulary
        self._norm = make_norm(config.norm, take_norm(weights, config.norm, Role.FINAL_NORM))
        self._multiplier, self._cap = config.logit_multiplier, config.logit_cap

    def __call__(self, states: Tensor, inputs: StepInputs) -> Tensor:
        """float32 [R, vocabulary]."""
        logits = self._vocabulary.logits(self._norm(states[inputs.sample_rows]))
        if self._multiplier != 1.0:
            logits = logits * self._multiplier
        return torch.tanh(logits / self._cap) * self._cap if self._cap else logits

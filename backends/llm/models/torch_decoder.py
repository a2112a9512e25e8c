"""Any model whose kinds have a piece in torch, composed of them layer by layer.

This says what the other implementations must give.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from trivet.backends.llm.attention.base import Attention, StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import Arrangement, GroupedAttention, Need, Rope
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.models.heads import Heads, Turn, Turns
from trivet.backends.llm.models.mlps import make_mlp
from trivet.backends.llm.models.norms import make_norm
from trivet.backends.llm.models.parts import take_attention, take_mlp, take_norm
from trivet.backends.llm.models.rotary import rotary_table
from trivet.backends.llm.models.vocabulary import Vocabulary
from trivet.backends.llm.weights.taking import Weights

COMPUTES = frozenset({
    Need.PRE_NORM, Need.RMS_NORM, Need.LAYER_NORM, Need.NORM_BIAS, Need.ROTARY, Need.UNROTATED,
    Need.LEARNED_POSITIONS, Need.WINDOW, Need.QKV_BIAS, Need.OUTPUT_BIAS, Need.HEAD_NORMS,
    Need.GATED_MLP, Need.PLAIN_MLP, Need.MLP_BIAS, Need.SILU, Need.GELU, Need.GELU_TANH,
    Need.DIFFERENT_LAYERS,
})  # fmt: skip
"""See Implementation."""


class LayerFunction(Protocol):
    """One layer of a step."""

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """[N, hidden] to the same; `turn`: of the layer's rotary positions."""


class PreNorm:
    """See Arrangement."""

    def __init__(self, weights: Weights, attention: Attention, layer: int) -> None:
        kind = weights.config.layers[layer]
        norms = (
            take_norm(weights, kind.norm, role, layer)
            for role in (Role.ATTENTION_NORM, Role.MLP_NORM)
        )
        self._attention_norm, self._mlp_norm = (make_norm(kind.norm, each) for each in norms)
        self._attend = Heads(kind.attention, take_attention(weights, layer), attention, layer)
        self._mlp = make_mlp(kind.mlp, take_mlp(weights, layer))
        self._ranks = weights.ranks

    def __call__(self, states: Tensor, turn: Turn | None) -> Tensor:
        """See LayerFunction."""
        attended = self._attend(self._attention_norm(states), turn)
        states = states + self._ranks.sum(attended)
        return states + self._ranks.sum(self._mlp(self._mlp_norm(states)))


ARRANGEMENTS: Mapping[Arrangement, Callable[[Weights, Attention, int], LayerFunction]] = {
    Arrangement.PRE_NORM: PreNorm
}


class TorchDecoder:
    """A decoder over the paged cache. Owned by the engine's thread."""

    is_recordable = False
    """Plain torch asks the device for lengths."""

    def __init__(self, weights: Weights, attention: Attention) -> None:
        """Raises LoadFailed when a weight is missing, of the wrong shape or not known."""
        config = weights.config
        self._attention = attention
        self._vocabulary = Vocabulary(weights)
        self._positions: Tensor | None = None
        if config.has_learned_positions:
            self._positions = weights.table(Role.POSITIONS, config.max_positions)
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
        self._norm = make_norm(config.norm, take_norm(weights, config.norm, Role.FINAL_NORM))
        weights.refuse_rest()

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._attention.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        states = self._vocabulary.embed(inputs.token_ids)
        if self._positions is not None:
            states = states + self._positions[inputs.positions]
        turns: list[Turn | None] = [table.at(inputs.positions) for table in self._tables]
        turns.append(None)  # at -1: of layers that are not rotated
        self._attention.begin(inputs)
        for layer, place in self._layers:
            states = layer(states, turns[place])
        return self._vocabulary.logits(self._norm(states[inputs.sample_rows]))

    def _turns(self, weights: Weights, kind: GroupedAttention) -> Turns:
        dtype, device = self._vocabulary.dtype, self._vocabulary.device
        num_positions = weights.config.max_positions
        cosines, sines = rotary_table(kind, num_positions, dtype, weights.rope_divisors())
        return Turns(cosines.to(device), sines.to(device))

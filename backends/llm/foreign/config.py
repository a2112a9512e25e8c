"""What we know of a model that transformers computes: what it keeps in the cache."""

from dataclasses import dataclass
from typing import Any

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import (
    GroupedAttention,
    Layer,
    PlainMlp,
    RmsNorm,
)
from trivet.backends.llm.families.names import Names
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.foreign.positions import max_positions

_UNKNOWN_MLP = PlainMlp(0)
_UNKNOWN_NORM = RmsNorm(0.0)


@dataclass(frozen=True, slots=True)
class ForeignConfig(LlmConfig):
    """A layer is an attention that keeps keys and values; of the rest of it nothing is known."""

    def needs(self) -> dict[Need, str]:
        """Nobody computes it but transformers."""
        return {Need.FOREIGN: "all layers"}


def config_of(
    config: Any,
    layers: tuple[GroupedAttention, ...],
    *,
    vocabulary_size: int,
    keeps_states: bool = False,
) -> ForeignConfig:
    """Of a model of transformers whose layers keep this."""
    return ForeignConfig(
        architecture=str(config.model_type),
        names=Names(()),
        hidden_size=0,
        vocabulary_size=vocabulary_size,
        max_positions=max_positions(config),
        layers=tuple(Layer(kind, _UNKNOWN_MLP, _UNKNOWN_NORM) for kind in layers),
        norm=_UNKNOWN_NORM,
        keeps_states=keeps_states,
    )

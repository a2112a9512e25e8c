"""What one model is: its sizes, its layers by kinds, and what its weights are called."""

from dataclasses import dataclass

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.kinds import GroupedAttention, Layer, Norm
from trivet.backends.llm.families.names import Names
from trivet.backends.llm.families.needs import Need


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """What a family reads from a file, and all that the engine knows of a model."""

    architecture: str
    """The family's, which is GGUF's word too."""
    names: Names
    hidden_size: int
    vocabulary_size: int
    max_positions: int
    layers: tuple[Layer, ...]
    norm: Norm
    """Behind the last layer."""
    stretched_positions: int = 0
    """How many there are where rotary positions are stretched (`stretching.py`); 0: they are not.
    """
    has_learned_positions: bool = False
    """A vector for each position is added to the embedding."""
    first_position: int = 0
    """The row of the first position in their table."""
    embedding_multiplier: float = 1.0
    embedding_norm: Norm | None = None
    ties_embeddings: bool = False
    has_head_bias: bool = False
    num_further_layers: int = 0
    """So many layers may be in files behind the last, for what is not computed (DeepSeek's, which
    predict several tokens)."""
    logit_multiplier: float = 1.0
    logit_cap: float = 0.0
    """Logits become cap * tanh(logit / cap); 0: they stay."""
    is_first: bool = True
    """Whether it begins with the embedding: of several stages one does."""
    is_last: bool = True
    """Whether it ends with the head."""
    keeps_states: bool = False
    """Sequences have a state beside their blocks, so that blocks alone do not make up a prefix."""

    @property
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.layers)

    @property
    def attentions(self) -> tuple[GroupedAttention, ...]:
        """Of all layers."""
        return tuple(layer.attention for layer in self.layers)

    @property
    def attention(self) -> GroupedAttention:
        """That of all layers, for those who compute one kind only. Raises LoadFailed when they
        differ."""
        first = self.layers[0].attention
        for index, layer in enumerate(self.layers):
            if layer.attention != first:
                raise LoadFailed(
                    f"attention of layer {index} is of another kind than that of layer 0: models "
                    "whose layers differ so are not computed this way"
                )
        return first

    def needs(self) -> dict[Need, str]:
        """All that must be computed, and where first."""
        found: dict[Need, str] = {}
        flags = {
            Need.LEARNED_POSITIONS: self.has_learned_positions,
            Need.EMBEDDING_MULTIPLIER: self.embedding_multiplier != 1.0,
            Need.EMBEDDING_NORM: self.embedding_norm is not None,
        }
        found |= {need: "the embedding" for need, is_there in flags.items() if is_there}
        if self.embedding_norm is not None:
            found |= dict.fromkeys(self.embedding_norm.needs(), "the embedding")
        for index, layer in enumerate(self.layers):
            for need in layer.needs():
                found.setdefault(need, f"layer {index}")
            if layer != self.layers[0]:
                found.setdefault(Need.DIFFERENT_LAYERS, f"layer {index}")
        for need in self.norm.needs():
            found.setdefault(need, "the last norm")
        flags = {
            Need.HEAD_BIAS: self.has_head_bias,
            Need.LOGIT_MULTIPLIER: self.logit_multiplier != 1.0,
            Need.LOGIT_CAP: bool(self.logit_cap),
        }
        found |= {need: "the logits" for need, is_there in flags.items() if is_there}
        return found

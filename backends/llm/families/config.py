"""What one model is: its sizes, its layers by kinds, and what its weights are called."""

from dataclasses import dataclass

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.kinds import GroupedAttention, Layer, Need, Norm
from trivet.backends.llm.families.names import Names


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
    has_learned_positions: bool = False
    """A vector for each position is added to the embedding."""
    ties_embeddings: bool = False
    keeps_states: bool = False
    """Sequences have a state beside their blocks, so that blocks alone do not make up a prefix."""

    @property
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.layers)

    @property
    def attention(self) -> GroupedAttention:
        """That of all layers. Raises LoadFailed when they differ, which no way of computing it can
        do yet."""
        first = self.layers[0].attention
        for index, layer in enumerate(self.layers):
            if layer.attention != first:
                raise LoadFailed(
                    f"attention of layer {index} is of another kind than that of layer 0: models "
                    "whose layers differ so cannot be computed"
                )
        return first

    def needs(self) -> dict[Need, str]:
        """All that must be computed, and where first."""
        found: dict[Need, str] = {}
        if self.has_learned_positions:
            found[Need.LEARNED_POSITIONS] = "the embedding"
        for index, layer in enumerate(self.layers):
            for need in layer.needs():
                found.setdefault(need, f"layer {index}")
            if layer != self.layers[0]:
                found.setdefault(Need.DIFFERENT_LAYERS, f"layer {index}")
        for need in self.norm.needs():
            found.setdefault(need, "the last norm")
        return found

"""Where a model can be adapted: its products, by what files call the matrices in them."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A file's matrix within a product: some of its outputs."""

    module: str
    """As files call it, without the `.weight`."""
    start: int
    stop: int
    order: Tensor | None = None
    """The file's outputs in the order in which they are computed; None: as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A product of a model: several matrices that read the same input are one."""

    index: int
    inputs: int
    outputs: int
    parts: tuple[Part, ...]


@dataclass(slots=True, eq=False)
class Places:
    """All of a model. Filled while its weights are taken."""

    all: list[Place] = field(default_factory=list)
    vocabulary_size: int = 0
    hidden_size: int = 0
    embedding: str = ""
    """The module's name, and the head's."""
    head: str = ""
    ties_embeddings: bool = False
    has_head_bias: bool = False

    def add(self, parts: tuple[Part, ...], inputs: int) -> Place:
        """A place that the model computes."""
        place = Place(len(self.all), inputs, parts[-1].stop, parts)
        self.all.append(place)
        return place

    def find(self, module: str) -> tuple[Place, int] | None:
        """The place of a module, and which part of it; a model that is part of another one has a
        longer name there."""
        for place in self.all:
            for number, part in enumerate(place.parts):
                if is_same(part.module, module):
                    return place, number
        return None


def is_same(one: str, other: str) -> bool:
    """Whether two names are of one module: one may have more in front."""
    return f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}")

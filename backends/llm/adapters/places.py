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
    whole_outputs: int
    """Of the file's matrix, of which a rank may compute a part."""
    order: Tensor | None = None
    """Which of the file's outputs are computed, in their order; None: all, as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A product of a model: several matrices that read the same input are one."""

    index: int
    inputs: int
    outputs: int
    parts: tuple[Part, ...]
    whole_inputs: int
    """Of the file's matrix, of which a rank may read a part."""
    first_input: int = 0

    def num_numbers(self, rank: int) -> int:
        """Of an adapter's matrices here, with this rank."""
        return rank * sum(self.inputs + part.stop - part.start for part in self.parts)


@dataclass(slots=True, eq=False)
class ExpertPlaces:
    """A layer's experts, whose matrices PEFT's files may have as one for all."""

    gate_up: list[Place] = field(default_factory=list)
    """Of each expert."""
    down: list[Place] = field(default_factory=list)
    alternates: bool = False
    """Whether the stacked matrix has the outputs of gate and up in turns."""


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
    experts: dict[int, ExpertPlaces] = field(default_factory=dict)
    """By layer."""
    _by_module: dict[str, tuple[Place, int]] = field(default_factory=dict)

    def add(
        self, parts: tuple[Part, ...], inputs: int, whole_inputs: int = 0, first_input: int = 0
    ) -> Place:
        """A place that the model computes; `whole_inputs` 0: it reads all of them."""
        place = Place(
            len(self.all), inputs, parts[-1].stop, parts, whole_inputs or inputs, first_input
        )
        self.all.append(place)
        self._by_module |= {part.module: (place, number) for number, part in enumerate(parts)}
        return place

    def find(self, module: str) -> tuple[Place, int] | None:
        """The place of a module, and which part of it; a model that is part of another one has a
        longer name there."""
        if module in self._by_module:
            return self._by_module[module]
        for place in self.all:
            for number, part in enumerate(place.parts):
                if is_same(part.module, module):
                    return place, number
        return None


def is_same(one: str, other: str) -> bool:
    """Whether two names are of one module: one may have more in front."""
    return f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}")

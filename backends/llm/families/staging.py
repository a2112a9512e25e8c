"""What each of several stages computes of a model: some of its layers, one stage after the other
(pipeline parallel: Huang et al., GPipe, 2019). The first begins with the embedding, the last ends
with the head."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import Names, Role

_OF_FIRST = {Role.EMBEDDING, Role.POSITIONS, Role.EMBEDDING_NORM}
_OF_LAST = {Role.FINAL_NORM, Role.HEAD}


@dataclass(frozen=True, slots=True)
class Stage:
    """One of those that compute a model."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it looks tokens up."""
        return self.number == 0

    @property
    def is_last(self) -> bool:
        """Whether it gives logits."""
        return self.number == self.count - 1

    def layers(self, num_layers: int) -> range:
        """Its own. What cannot be divided is shared out to stages in the middle first, for the last
        computes logits besides, and the first has the embedding. Raises LoadFailed where there are
        more stages than layers."""
        if self.count == 1:
            return range(num_layers)
        if self.count > num_layers:
            raise LoadFailed(
                f"the model's {num_layers} layers cannot be shared out to {self.count} stages: "
                "each needs one (model parameter pipeline_parallel_size)"
            )
        each, rest = divmod(num_layers, self.count)
        places = sorted(range(self.count), key=lambda n: (n == self.count - 1, n == 0, n))
        counts = [each + (number in places[:rest]) for number in range(self.count)]
        start = sum(counts[: self.number])
        return range(start, start + counts[self.number])

    def of(self, config: LlmConfig) -> LlmConfig:
        """What it computes of a model, whose layers it numbers from 0. Raises LoadFailed."""
        if self.count == 1:
            return config
        mine = self.layers(config.num_layers)
        return replace(
            config,
            layers=config.layers[mine.start : mine.stop],
            names=config.names.from_layer(mine.start),
            is_first=self.is_first,
            is_last=self.is_last,
        )


WHOLE = Stage()
"""The only stage of a model that one process computes."""


class Held:
    """Which weights of a file a stage computes with."""

    def __init__(self, stage: Stage, config: LlmConfig) -> None:
        """`config`: of the whole model. Raises LoadFailed."""
        self._stage = stage
        self._layers = stage.layers(config.num_layers)
        self._num_layers = config.num_layers
        self._left_out = self._ends(config)
        self._stems = set(_layer_stems(config.names))
        self._alien = tuple(
            name.in_hub(0)
            for name in config.names.weights
            if "{layer}" not in name.hub and self._left_out.intersection(name.roles)
        )

    def has_layer(self, layer: int) -> bool:
        """Whether a layer is its own. What files have behind the last is the last stage's."""
        return layer in self._layers or (self._stage.is_last and layer >= self._num_layers)

    def has_role(self, role: Role) -> bool:
        """Whether a weight outside of the layers is its own."""
        return role not in self._left_out

    def has(self, name: str) -> bool:
        """By Hugging Face's name, perhaps of a part of a packed weight."""
        for stem in self._stems:
            if name.startswith(stem):
                number = name[len(stem) :].partition(".")[0]
                return not number.isdecimal() or self.has_layer(int(number))
        return not any(name == stem or name.startswith(f"{stem}.") for stem in self._alien)

    def _ends(self, config: LlmConfig) -> set[Role]:
        """What lies outside of the layers and is another stage's."""
        stage = self._stage
        left_out = (set() if stage.is_first else _OF_FIRST) | (set() if stage.is_last else _OF_LAST)
        if stage.is_last and config.ties_embeddings:
            return left_out - {Role.EMBEDDING}
        return left_out


def _layer_stems(names: Names) -> Iterator[str]:
    """What names of layers begin with, up to their number."""
    hubs = [each.hub for each in names.weights] + [each.hub for each in names.stacked]
    for hub in hubs:
        stem, number, _ = hub.partition("{layer}")
        if number:
            yield stem

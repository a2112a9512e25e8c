"""Changes of matrices that all experts of a layer have together, as PEFT's files have them.

A parameter [experts, .., ..] gets one pair for all: lora_A [rank x experts, inputs], expert after
expert, and lora_B [outputs, rank x experts], of which each number of the rank has all experts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.adapters.adapter import LowRank
from trivet.backends.llm.adapters.config import CONFIG_FILE, AdapterConfig
from trivet.backends.llm.adapters.places import ExpertPlaces, Place

EXPERTS = re.compile(r"(?:.*\.)?layers\.(\d+)\.(?:.*\.)?experts(?:\.base_layer)?")
"""A module of them, and its layer."""
_GATE_UP, _DOWN = "gate_up_proj", "down_proj"


@dataclass(frozen=True, slots=True)
class ExpertStack:
    """Of one parameter."""

    places: Sequence[Place]
    """Of each expert."""
    rank: int
    scaling: float
    downs: Tensor
    ups: Tensor
    alternates: bool
    """Whether the outputs of a place's parts stand in turns."""

    def low_ranks(self) -> Iterator[LowRank]:
        """Of each expert, for all parts of its place together."""
        count = len(self.places)
        downs = self.downs.view(count, self.rank, -1)
        ups = self.ups.view(len(self.ups), self.rank, count).float() * self.scaling
        for expert in range(count):
            yield LowRank(downs[expert], ups[:, :, expert])

    def of_parts(self, up: Tensor) -> Sequence[Tensor]:
        """An expert's, part by part."""
        count = len(self.places[0].parts)
        return [up[n::count] for n in range(count)] if self.alternates else up.chunk(count)


def stack_of(
    module: str, downs: Tensor, ups: Tensor, experts: ExpertPlaces, config: AdapterConfig
) -> ExpertStack:
    """Which parameter of a module a pair changes, and how. Raises LoadFailed."""
    for parameter, places in ((_GATE_UP, experts.gate_up), (_DOWN, experts.down)):
        name = f"{module.removesuffix('.base_layer')}.{parameter}"
        rank, count = config.rank_of(name), len(places)
        outputs = sum(part.whole_outputs for part in places[0].parts)
        shapes = [(rank * count, places[0].whole_inputs), (outputs, rank * count)]
        if [tuple(downs.shape), tuple(ups.shape)] == shapes:
            alternates = experts.alternates and parameter == _GATE_UP
            return ExpertStack(places, rank, config.scaling_of(name), downs, ups, alternates)
    raise LoadFailed(
        f"weights '{module}.lora_A' and '.lora_B' are of shapes {list(downs.shape)} and "
        f"{list(ups.shape)}, which go with neither {_GATE_UP} nor {_DOWN} of this base's "
        f"{len(experts.down)} experts at the rank that {CONFIG_FILE} says"
    )

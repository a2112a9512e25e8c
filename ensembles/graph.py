"""The graph of an ensemble: its steps, who makes which tensor, and in which order. Pure.

`read_graph` is the only way to one, so a graph is always sound: every tensor has a maker, nothing
goes in a circle, types and shapes fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.backends.api import DataType, Shape, Signature
from trivet.ensembles.condition import Condition
from trivet.ensembles.settings import StepSettings
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of the ensemble. `dims` are the whole shape, with the batch dimension if any."""

    datatype: DataType
    dims: Shape
    batching: bool
    """Whether the first of them is a batch dimension."""
    source: str
    """Who makes it, for error texts."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor of the ensemble at a step's input or output, or at an output of the ensemble."""

    name: str
    """What the model calls it."""
    tensor: str
    """What the ensemble calls it."""
    shift: int = 0
    """Leading dimensions of 1 that are put before (1) or taken off (-1) on the way over it, where
    one side has a batch dimension and the other has none."""


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a model."""

    number: int
    model: str
    """What the server knows it by."""
    version: int | None
    signature: Signature
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    settings: StepSettings
    when: Condition | None = None
    return_if: Condition | None = None
    earlier: tuple[int, ...] = ()
    """Steps that make the same tensors; this one runs only if all of them are skipped."""
    level: int = 0
    """How many decoupled steps its inputs come through."""

    needs: frozenset[str] = field(init=False)
    """The tensors that it waits for. What `return_if` asks about is not waited for."""

    def __post_init__(self) -> None:
        conditional = self.when.tensors if self.when is not None else frozenset()
        needs = conditional | {edge.tensor for edge in self.inputs}
        object.__setattr__(self, "needs", needs)

    @property
    def title(self) -> str:
        """For error texts."""
        return f"step {self.number} (model '{self.model}')"


@dataclass(frozen=True, slots=True)
class Graph:
    """A sound ensemble."""

    config: ModelConfig
    """Complete: with inputs and outputs."""
    signature: Signature
    steps: tuple[Step, ...]
    makers: Mapping[str, tuple[int, ...]]
    """The steps that may make each tensor which is not an input of the ensemble."""
    outputs: Mapping[str, Edge]
    """By output name of the ensemble."""
    max_inflight: int
    """Responses of a decoupled step that may be on their way at a time; 0: any number."""
    shared: frozenset[int] = frozenset()
    """Steps that ask, themselves or through ensembles, a model that others ask as well."""
    parts: frozenset[str] = frozenset()
    """All models that it asks, itself or through ensembles, by what the catalog knows them by."""

    def needed_for(self, output_names: tuple[str, ...]) -> frozenset[int]:
        """The steps that matter for some outputs (none given: all of them)."""
        todo = [
            number
            for name in output_names or self.outputs
            for number in self.makers[self.outputs[name].tensor]
        ]
        todo += [step.number for step in self.steps if step.return_if is not None]
        needed: set[int] = set()
        while todo:
            step = self.steps[todo.pop()]
            if step.number not in needed:
                needed.add(step.number)
                todo += step.earlier
                todo += (number for name in step.needs for number in self.makers.get(name, ()))
        return frozenset(needed)

"""Implicit state: an output of one request is an input of its sequence's next one.

The state stays in the server, as references to the model's own output arrays; clients do not see it
unless the config lists it as an output too.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    DataType,
    InvalidConfig,
    ModelFiles,
    Shape,
    Tensor,
)
from trivet.protos.model_config_pb2 import ModelConfig, ModelSequenceBatching
from trivet.server.scheduling.sequences.sequence import Sequence

FOLDER = "initial_state"


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One state tensor of a model."""

    input_name: str
    output_name: str
    datatype: DataType
    dims: Shape
    """With the batch dimension, which is 1, where the model batches; -1 is a variable one."""
    initial: Tensor
    is_in_place: bool
    """A sequence has one buffer for it: every request sees the state at the same address."""
    may_grow: bool

    def fits(self, tensor: Tensor) -> bool:
        """Whether an output can be this state."""
        return (
            tensor.datatype is self.datatype
            and len(tensor.shape) == len(self.dims)
            and all(d in (-1, size) for d, size in zip(self.dims, tensor.shape, strict=True))
        )


@dataclass(frozen=True, slots=True)
class ImplicitState:
    """The states of one model."""

    specs: dict[str, StateSpec]
    """By output name."""
    visible: frozenset[str]
    """Names of those that the config lists as outputs too."""
    has_variable_shape: bool

    @classmethod
    def from_config(cls, config: ModelConfig, files: ModelFiles) -> Self | None:
        """Of a config that has been checked; None without states. Reads the initial values' files;
        raises InvalidConfig for one that is missing or of the wrong size."""
        specs = [_spec(config, state, files) for state in config.sequence_batching.state]
        if not specs:
            return None
        outputs = {output.name for output in config.output}
        return cls(
            {spec.output_name: spec for spec in specs},
            frozenset(spec.output_name for spec in specs if spec.output_name in outputs),
            any(-1 in spec.dims for spec in specs),
        )

    def add(self, inputs: dict[str, Tensor], sequence: Sequence, *, is_start: bool) -> None:
        """Adds the state inputs of a sequence's next request."""
        if is_start or not sequence.state:
            sequence.state = {
                spec.input_name: _own(spec.initial) if spec.is_in_place else spec.initial
                for spec in self.specs.values()
            }
        inputs.update(sequence.state)

    def shapes(self, sequence: Sequence, *, is_start: bool) -> tuple[Shape, ...]:
        """Of the state inputs that `add` would add."""
        if is_start or not sequence.state:
            return tuple(spec.initial.shape for spec in self.specs.values())
        return tuple(tensor.shape for tensor in sequence.state.values())

    def take(self, sequence: Sequence, outputs: list[Tensor], *, is_shared: bool) -> list[Tensor]:
        """Keeps the states among a request's outputs; returns what the client may see.

        `is_shared`: the outputs are parts of a batch's, which a state must not keep alive. Raises
        BackendFailed for a state of the wrong type or shape.
        """
        seen: list[Tensor] = []
        for tensor in outputs:
            spec = self.specs.get(tensor.name)
            if spec is None or spec.output_name in self.visible:
                seen.append(tensor)
            if spec is not None:
                self._keep(sequence, spec, tensor, is_shared=is_shared)
        return seen

    def _keep(
        self, sequence: Sequence, spec: StateSpec, tensor: Tensor, *, is_shared: bool
    ) -> None:
        if not spec.fits(tensor):
            raise BackendFailed(
                f"state output '{spec.output_name}' is {tensor.datatype.value} of shape "
                f"{list(tensor.shape)}, but the config says {spec.datatype.value} {list(spec.dims)}"
            )
        name = spec.input_name
        if not spec.is_in_place:
            kept = _own(tensor) if is_shared else tensor
            sequence.state[name] = kept.renamed(name, tensor.shape)
            return
        buffer = sequence.state[name]
        if buffer.shape == tensor.shape:
            np.copyto(buffer.numpy(), tensor.numpy())
        elif spec.may_grow:
            sequence.state[name] = _own(tensor).renamed(name, tensor.shape)
        else:
            raise BackendFailed(
                f"state output '{spec.output_name}' has shape {list(tensor.shape)}, but its buffer "
                f"has {list(buffer.shape)}; with use_same_buffer_for_input_output a state changes "
                "its size only where use_growable_memory is set"
            )


def _own(tensor: Tensor) -> Tensor:
    """A copy that shares nothing and may be written to."""
    return Tensor(tensor.name, tensor.datatype, tensor.shape, tensor.numpy().copy())


def _spec(config: ModelConfig, state: ModelSequenceBatching.State, files: ModelFiles) -> StateSpec:
    head = (1,) if config.max_batch_size > 0 else ()
    return StateSpec(
        state.input_name,
        state.output_name,
        DataType.from_config(state.data_type),
        (*head, *state.dims),
        _initial(state, head, files),
        state.use_same_buffer_for_input_output,
        state.use_growable_memory,
    )


def _initial(state: ModelSequenceBatching.State, head: Shape, files: ModelFiles) -> Tensor:
    """What a sequence begins with: the config's values, else zeros; a variable dimension is 1."""
    given = state.initial_state[0] if state.initial_state else None
    datatype = DataType.from_config(state.data_type)
    dims = tuple(given.dims) if given is not None else tuple(state.dims)
    shape = (*head, *(1 if dim == -1 else dim for dim in dims))
    if given is not None and given.data_file:
        return _from_file(state.input_name, given.data_file, datatype, shape, files)
    if datatype is DataType.BYTES:
        return Tensor(state.input_name, datatype, shape, np.full(shape, b"", dtype=object))
    return Tensor(state.input_name, datatype, shape, np.zeros(shape, dtype=datatype.dtype))


def _from_file(
    name: str, filename: str, datatype: DataType, shape: Shape, files: ModelFiles
) -> Tensor:
    raw = files.inside(files.model_dir / FOLDER, filename).read_bytes()
    try:
        return Tensor.from_raw(name, datatype, shape, raw)
    except ValueError as error:
        raise InvalidConfig(
            f"initial_state of '{name}': file '{FOLDER}/{filename}' of {len(raw)} bytes does not "
            f"hold a {datatype.value} tensor of shape {list(shape)}: {error}"
        ) from None

"""Programs of torch.export (`model.pt2`), whose archives name and describe their tensors."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree  # the tree of arguments has no public module

from trivet.backends.api import InvalidConfig, InvalidRequest, LoadFailed
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.extent import Extents
from trivet.backends.api.supplied import instance_config
from trivet.backends.pytorch.archive import check_exported
from trivet.backends.pytorch.bounds import exported_extents
from trivet.backends.pytorch.names import match_positions
from trivet.backends.pytorch.program import Program, storages
from trivet.backends.pytorch.tensors import DATATYPES
from trivet.protos.model_config_pb2 import ModelConfig

_GUARD = "Guard failed:"
_ONE_AT_A_TIME = threading.Lock()
"""torch.export.load keeps what it is doing in a global."""


def complete_exported(config: ModelConfig, path: Path) -> ModelConfig:
    """Raises InvalidConfig, LoadFailed."""
    exported = _load(path)
    inputs = _declared(exported, [name for name in _inputs(exported) if name is not None])
    outputs = _declared(exported, _outputs(exported))
    seen = instance_config(config)
    return complete_config(
        config,
        _renamed(config.name, inputs, [t.name for t in seen.input if config.input]),
        _renamed(config.name, outputs, [t.name for t in seen.output if config.output]),
    )


def load_exported(config: ModelConfig, path: Path, device: torch.device | None) -> Program:
    """Raises LoadFailed, InvalidConfig."""
    exported = _load(path)
    module = exported.module()
    if device is not None and device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        module = move_to_device_pass(exported, device).module()
    slots = [index for index, name in enumerate(_inputs(exported)) if name is not None]
    own_names = [name for name in _inputs(exported) if name is not None]
    names = [tensor.name for tensor in config.input]
    outputs = [tensor.name for tensor in config.output]
    positions = match_positions(config.name, names, own_names)
    call = _Call(
        module,
        exported.call_spec.in_spec,
        tuple(_constants(exported)),
        {name: slots[position] for name, position in positions.items()},
    )
    return Program(
        call,
        match_positions(config.name, outputs, _outputs(exported)),
        storages((*module.parameters(), *module.buffers())),
        _extents(exported, {name: own_names[position] for name, position in positions.items()}),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Puts tensors into the tree of arguments that the program was exported with."""

    module: torch.nn.Module
    tree: Any
    constants: tuple[object, ...]
    slots: Mapping[str, int]

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> object:
        leaves = list(self.constants)
        for name, tensor in tensors.items():
            leaves[self.slots[name]] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.tree)
        # Not module(...): its hook compares the tree of arguments with the one they were just put
        # into, which takes twice the time of a small model (102 us instead of 41 us). Shapes are
        # checked by the program itself.
        try:
            result = self.module.forward(*args, **kwargs)
        except AssertionError as error:
            if not str(error).startswith(_GUARD):
                raise
            # Of what the export assumed: equal sizes of two inputs, multiples of a number.
            raise InvalidRequest(
                "the exported program does not take inputs of these shapes: it holds for "
                f"{str(error).removeprefix(_GUARD).strip()} only"
            ) from error
        return pytree.tree_leaves(result)


def _load(path: Path) -> ExportedProgram:
    check_exported(path)
    try:
        with _ONE_AT_A_TIME:
            return torch.export.load(path)
    # What a damaged archive makes PyTorch raise depends on the damage.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LoadFailed(
            f"'{path.name}' could not be loaded by PyTorch {torch.__version__}: {reason}"
        ) from error


def _inputs(exported: ExportedProgram) -> list[str | None]:
    """The names of the inputs in order; None for one that the export has fixed to a constant."""
    values = exported.graph_signature.user_inputs
    return [value if isinstance(value, str) else None for value in values]


def _constants(exported: ExportedProgram) -> list[object]:
    values = exported.graph_signature.user_inputs
    return [None if isinstance(value, str) else value for value in values]


def _outputs(exported: ExportedProgram) -> list[str]:
    """The names of the outputs; a value returned twice gets a number the second time."""
    names: list[str] = []
    for index, value in enumerate(exported.graph_signature.user_outputs):
        name = str(value)
        names.append(name if name not in names else f"{name}_{index}")
    return names


def _declared(exported: ExportedProgram, names: Sequence[str]) -> list[ModelTensor]:
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    return [_tensor(exported, name, values.get(name)) for name in names]


def _extents(exported: ExportedProgram, names: Mapping[str, str]) -> dict[str, Extents]:
    """By the config's name for it: what each input may be, where that is limited."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    shapes = {name: tuple(values[own].shape) for name, own in names.items()}
    found = {name: exported_extents(exported, shape) for name, shape in shapes.items()}
    return {name: extents for name, extents in found.items() if extents}


def _tensor(exported: ExportedProgram, name: str, value: object) -> ModelTensor:
    if not isinstance(value, torch.Tensor) or value.dtype not in DATATYPES:
        raise InvalidConfig(
            f"'{name}' of the exported program is no tensor of a supported type; export the "
            "program with tensors only"
        )
    # A dimension that the export left open is a SymInt.
    shape = tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)
    extents = exported_extents(exported, tuple(value.shape))
    return ModelTensor(name, DATATYPES[value.dtype], shape, extents=extents)


def _renamed(
    model_name: str, tensors: Sequence[ModelTensor], names: Sequence[str]
) -> list[ModelTensor]:
    """The tensors under the names that the config uses for them, where it lists them."""
    own_names = [tensor.name for tensor in tensors]
    used = {i: n for n, i in match_positions(model_name, names, own_names).items()}
    return [
        replace(tensor, name=used.get(index, tensor.name)) for index, tensor in enumerate(tensors)
    ]

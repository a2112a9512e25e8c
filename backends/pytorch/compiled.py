"""AOTInductor packages (`model.pt2` with compiled code in it)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._inductor import aoti_load_package  # PyTorch documents this path
from torch.utils import _pytree as pytree  # the tree of arguments has no public module

from trivet.backends.api import LoadFailed
from trivet.backends.api.extent import check_config
from trivet.backends.pytorch.bounds import compiled_extents
from trivet.backends.pytorch.names import match_positions
from trivet.backends.pytorch.program import Program
from trivet.protos.model_config_pb2 import ModelConfig


def load_compiled(config: ModelConfig, path: Path, device: torch.device | None) -> Program:
    """Raises LoadFailed, InvalidConfig."""
    model = _load(path, device)
    in_spec, out_spec = (pytree.treespec_loads(text) for text in model.loader.get_call_spec())
    _check_device(config, model.loader.get_metadata(), device)
    names = [tensor.name for tensor in config.input]
    outputs = [tensor.name for tensor in config.output]
    positions = match_positions(config.name, names, _argument_names(in_spec))
    call = _Call(model, in_spec, positions)
    known = compiled_extents(path)
    extents = {name: known[place] for name, place in positions.items() if known.get(place)}
    check_config(config, extents)
    # Compiled code keeps its constants to itself, so no output lies on one.
    return Program(
        call, match_positions(config.name, outputs, _result_names(out_spec)), frozenset(), extents
    )


@dataclass(frozen=True, slots=True)
class _Call:
    model: Any
    tree: Any
    positions: Mapping[str, int]

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> object:
        leaves: list[torch.Tensor | None] = [None] * self.tree.num_leaves
        for name, tensor in tensors.items():
            leaves[self.positions[name]] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.tree)
        return pytree.tree_leaves(self.model(*args, **kwargs))


def _load(path: Path, device: torch.device | None) -> Any:
    index = device.index if device is not None and device.type == "cuda" else -1
    try:
        return aoti_load_package(str(path), device_index=index)
    except (RuntimeError, ValueError) as error:
        raise LoadFailed(
            f"'{path.name}' could not be loaded by PyTorch {torch.__version__}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check_device(
    config: ModelConfig, metadata: Mapping[str, str], device: torch.device | None
) -> None:
    compiled_for = metadata.get("AOTI_DEVICE_KEY", "cpu")
    if device is not None and device.type != compiled_for:
        raise LoadFailed(
            f"model '{config.name}' was compiled for {compiled_for}, but its instance group places "
            f"it on {device.type}; set the group's kind or compile it for that device"
        )


def _argument_names(tree: Any) -> list[str]:
    """ARGS[0], ARGS[1][2], KWARGS[mask] ...: Triton's names, in the order of the leaves."""
    return [("ARGS", "KWARGS")[path[0].idx] + _brackets(path[1:]) for path in _paths(tree)]


def _result_names(tree: Any) -> list[str]:
    """RESULT[0] ...; a lone tensor is RESULT[0] too."""
    return ["RESULT" + (_brackets(path) or "[0]") for path in _paths(tree)]


def _paths(tree: Any) -> list[Any]:
    indices = pytree.tree_unflatten(list(range(tree.num_leaves)), tree)
    return [path for path, _ in pytree.tree_flatten_with_path(indices)[0]]


def _brackets(path: Any) -> str:
    return "".join(f"[{getattr(key, 'key', getattr(key, 'idx', key))}]" for key in path)

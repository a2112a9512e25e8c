"""TorchScript models (`model.pt`)."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.pytorch.names import match_positions
from trivet.backends.pytorch.program import Call, Program, storages
from trivet.protos.model_config_pb2 import ModelConfig

_FILE_OPERATORS = frozenset({"aten::from_file", "aten::save"})


def load_script(config: ModelConfig, path: Path, device: torch.device | None) -> Program:
    """Raises LoadFailed, InvalidConfig."""
    module = _load(path, device)
    module.eval()
    _refuse_file_access(path, module)
    outputs = [tensor.name for tensor in config.output]
    return Program(
        _bind(config, module),
        match_positions(config.name, outputs, None),
        storages((*module.parameters(), *module.buffers())),
    )


def _load(path: Path, device: torch.device | None) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated by PyTorch, but it is what model.pt files are.
            warnings.simplefilter("ignore", DeprecationWarning)
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                path, map_location=device
            )
    except (RuntimeError, ValueError) as error:
        raise LoadFailed(
            f"'{path.name}' could not be loaded by PyTorch {torch.__version__} (it is "
            f"{describe_content(path)}): {str(error).splitlines()[0]}"
        ) from error
    return module


def _refuse_file_access(path: Path, module: torch.jit.ScriptModule) -> None:
    used = _FILE_OPERATORS & set(_operators(module.inlined_graph))
    if used:
        raise LoadFailed(
            f"'{path.name}' reads or writes files when it runs ({sorted(used)}), which models may "
            "not: remove it from the model"
        )


def _operators(block: "torch._C.Graph | torch._C.Block") -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _operators(inner)


def _bind(config: ModelConfig, module: torch.jit.ScriptModule) -> Call:
    # The stubs take forward for a plain function.
    arguments = module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
    own_names = [argument.name for argument in arguments]
    names = [tensor.name for tensor in config.input]
    if len(arguments) == 1 and arguments[0].type.kind() == "DictType":
        return lambda tensors: module(dict(tensors))
    if len(arguments) == 1 and _is_list_of_tensors(arguments[0]):
        return lambda tensors: module([tensors[name] for name in names])
    positions = match_positions(config.name, names, own_names)
    _check_required(config, arguments, positions)
    keywords = {name: own_names[position] for name, position in positions.items()}
    return lambda tensors: module(**{keywords[name]: t for name, t in tensors.items()})


def _is_list_of_tensors(argument: "torch._C.Argument") -> bool:
    kind = argument.type
    return kind.kind() == "ListType" and kind.getElementType().kind() != "StringType"


def _check_required(
    config: ModelConfig,
    arguments: "list[torch._C.Argument]",
    positions: Mapping[str, int],
) -> None:
    given = set(positions.values())
    missing = [
        argument.name
        for index, argument in enumerate(arguments)
        if index not in given and not argument.has_default_value()
    ]
    if missing:
        raise InvalidConfig(
            f"model '{config.name}': forward() needs the arguments {missing}, for which the config "
            f"has no input; it has {list(positions)}"
        )

"""Python modules with weights: a torch.nn.Module class in `model.py` beside its state dict."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the name of an error, nothing is unpickled
from types import ModuleType

import torch

from trivet.backends.api import (
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    UnreadableFiles,
    storage_fault_below,
)
from trivet.backends.api.content import check_readable, describe_content
from trivet.backends.pytorch.about import MODULE_FILE, WEIGHT_FILES
from trivet.backends.pytorch.names import match_positions
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program, Value, storages
from trivet.backends.source import run_source
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)


def load_module(
    config: ModelConfig,
    files: ModelFiles,
    device: torch.device | None,
    parameters: PyTorchParameters,
) -> Program:
    """Raises LoadFailed, InvalidConfig."""
    source = _source(config, files)
    module = _new_module(source, files, parameters.class_name)
    weights = _weights(config, files)
    if weights is not None:
        _fill(module, weights)
    return program_of(config, module, device, parameters)


def program_of(
    config: ModelConfig,
    module: torch.nn.Module,
    device: torch.device | None,
    parameters: PyTorchParameters,
) -> Program:
    """A module, called by the names of its own arguments. Raises InvalidConfig."""
    module.eval()
    if device is not None:
        module.to(device)
    owned = storages((*module.parameters(), *module.buffers()))
    own_names = list(inspect.signature(module.forward).parameters)
    keywords = {
        name: own_names[position]
        for name, position in match_positions(
            config.name, [tensor.name for tensor in config.input], own_names
        ).items()
    }
    options = parameters.compile_options
    program = module if options is None else torch.compile(module, **options)

    def call(tensors: Mapping[str, Value]) -> object:
        return program(**{keywords[name]: tensor for name, tensor in tensors.items()})

    outputs = [tensor.name for tensor in config.output]
    return Program(call, match_positions(config.name, outputs, None), owned)


def _source(config: ModelConfig, files: ModelFiles) -> Path:
    name = config.runtime or MODULE_FILE
    in_version = (files.version_dir / name).exists()
    return files.inside(files.version_dir if in_version else files.model_dir, name)


def _new_module(source: Path, files: ModelFiles, class_name: str) -> torch.nn.Module:
    where = f"'{source.name}' of model '{files.name}'"
    try:
        return _class_of(source, files, class_name)()
    except InvalidConfig:
        raise
    except Exception as error:
        if fault := storage_fault_below(files.model_dir, error):
            raise UnreadableFiles(f"{where} cannot be run: {fault}") from None
        log.exception("%s failed", where)
        raise LoadFailed(f"{where} failed; the server log has the details") from None


def _class_of(source: Path, files: ModelFiles, class_name: str) -> type[torch.nn.Module]:
    imported = _import(source, files)
    classes = {
        name: value
        for name, value in vars(imported).items()
        if isinstance(value, type)
        and issubclass(value, torch.nn.Module)
        and value.__module__ == imported.__name__
    }
    if class_name in classes:
        return classes[class_name]
    if class_name or len(classes) != 1:
        raise InvalidConfig(
            f"'{source.name}' of model '{files.name}' defines the torch.nn.Module "
            f"classes {sorted(classes)}; name the one to serve with parameter MODEL_CLASS_NAME"
            + (f", not '{class_name}'" if class_name else "")
        )
    return next(iter(classes.values()))


def _import(source: Path, files: ModelFiles) -> ModuleType:
    """Runs the file as a module of its own name, so that versions do not meet."""
    name = f"trivet_models.{files.name}.v{files.version}.{source.stem}"
    return run_source(name, source)


def _weights(config: ModelConfig, files: ModelFiles) -> dict[str, torch.Tensor] | None:
    """The state dict beside the class, None without one. Never unpickles Python objects."""
    names = (config.default_model_filename,) if config.default_model_filename else WEIGHT_FILES
    name = next((name for name in names if (files.version_dir / name).exists()), None)
    if name is None:
        return None
    path = files.inside(files.version_dir, name)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_state_dict
    return read(path)


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise LoadFailed(
            f"'{path.name}' holds no plain state dict (it is {describe_content(path)}); save it "
            "with torch.save(model.state_dict(), ...) or as safetensors. Other pickled objects are "
            "not loaded, because they run code"
        ) from error
    if not isinstance(weights, dict):
        raise LoadFailed(f"'{path.name}' holds a {type(weights).__name__}, not a state dict")
    return weights


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    # An optional package of its own, wanted only for this file format.
    try:
        import safetensors
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise LoadFailed(
            f"'{path.name}' needs the package 'safetensors': pip install safetensors"
        ) from error
    try:
        check_readable(path)
        weights: dict[str, torch.Tensor] = load_file(path)
    except safetensors.SafetensorError as error:
        raise LoadFailed(
            f"'{path.name}' is no safetensors file ({error}); it is {describe_content(path)}"
        ) from error
    return weights


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise LoadFailed(f"the weights do not fit the class in model.py: {error}") from error

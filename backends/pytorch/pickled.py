"""Modules that were pickled whole, for models whose pickles the operator allows.

Read in a process of its own only: the file runs what it says.
"""

from pathlib import Path

import torch

from trivet.backends.api import LoadFailed
from trivet.backends.pytorch.archive import FIX
from trivet.backends.pytorch.module import program_of
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program
from trivet.protos.model_config_pb2 import ModelConfig


def load_pickled(
    config: ModelConfig, path: Path, device: torch.device | None, parameters: PyTorchParameters
) -> Program:
    """Raises LoadFailed, InvalidConfig."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except AttributeError as error:
        raise LoadFailed(
            f"'{path.name}' needs a class that is not there ({error}): put the module that defines "
            "it beside the model file, under the name that it had when the model was saved"
        ) from error
    # Unpickling raises whatever the pickled objects do.
    except Exception as error:
        raise LoadFailed(
            f"'{path.name}' could not be unpickled: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, torch.nn.Module):
        raise LoadFailed(f"'{path.name}' holds a {type(found).__name__}, no module: {FIX}")
    return program_of(config, found, device, parameters)

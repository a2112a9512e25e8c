"""Where a model's instances run: in the server, or in processes of their own."""

from trivet.backends.api import (
    About,
    Backend,
    ModelFiles,
    StartsProcesses,
    UsesGpus,
    parameter,
)
from trivet.protos.model_config_pb2 import ModelConfig


def is_apart(about: About, config: ModelConfig) -> bool:
    """Whether instances run in processes of their own."""
    return parameter(config, "isolation", about.usual_isolation) == "process"


def starts_processes(backend: Backend, config: ModelConfig) -> bool:
    """Whether the backend itself sees to that."""
    return isinstance(backend, StartsProcesses) and backend.starts_processes(config)


def takes_uuids(backend: Backend, config: ModelConfig) -> bool:
    """Whether an instance may be placed on a device by its UUID."""
    return starts_processes(backend, config) or isinstance(backend, UsesGpus)


def completed(
    about: About, backend: Backend, config: ModelConfig, files: ModelFiles
) -> ModelConfig:
    """The config, completed where the model's own code may run."""
    runs_code = about.runs_user_code and is_apart(about, config)
    if runs_code and not starts_processes(backend, config):
        from trivet.backends.process import complete_isolated

        return complete_isolated(about.word, config, files)
    return backend.complete(config, files)

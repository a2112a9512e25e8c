"""Backend `python`: models written as a `model.py` for Triton's Python backend.

Config parameter `isolation`: "process" (the default) runs each instance in a process of its own,
"none" runs it in the server, which saves the hop and shares the server's fate and its GIL.
"""

from trivet.backends.api import (
    Environment,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Recipe,
)
from trivet.backends.api.config import parameter
from trivet.backends.api.meters import MeterStore
from trivet.backends.process import Isolation, complete_isolated, isolation_of, open_isolated
from trivet.backends.python.about import ABOUT, MODEL_FILE
from trivet.backends.python.completion import describe, may_describe_itself
from trivet.backends.python.instance import PythonInstance
from trivet.protos.model_config_pb2 import ModelConfig

_FORCE_CPU = "FORCE_CPU_ONLY_INPUT_TENSORS"


class PythonBackend:
    """Opens models that define a class TritonPythonModel."""

    def __init__(self, store: MeterStore | None = None) -> None:
        """`store`: for the metrics that they make up; without one they cannot."""
        self._store = store

    def metered(self, store: MeterStore) -> "PythonBackend":
        """See MakesMeters."""
        return PythonBackend(store)

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Runs the model's `auto_complete_config`, where the model itself will run."""
        _check_parameters(config)
        path = files.artifact(config, MODEL_FILE)
        completed = ModelConfig()
        completed.CopyFrom(config)
        completed.backend = config.backend or ABOUT.word
        completed.default_model_filename = config.default_model_filename or MODEL_FILE
        if not may_describe_itself(path):
            return completed
        if isolation_of(config, ABOUT) is Isolation.PROCESS:
            return complete_isolated(ABOUT.word, completed, files)
        return describe(path, completed, files)

    def environment(self, config: ModelConfig, files: ModelFiles) -> Environment | Recipe | None:
        """See WantsEnvironment."""
        # Not in the model's own process, which has the environment's packages.
        from trivet.backends.environments.wanted import environment_of

        wanted = environment_of(config, files)
        if wanted is not None and isolation_of(config, ABOUT) is not Isolation.PROCESS:
            raise InvalidConfig(
                f"model '{config.name}': parameter isolation is 'none', but a model with an "
                "environment of its own runs in a process of its own; leave it out"
            )
        return wanted

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """See ChecksFiles: what it takes to run the model."""
        _check_parameters(config)
        files.artifact(config, MODEL_FILE)
        self.environment(config, files)

    def starts_processes(self, config: ModelConfig) -> bool:
        """See StartsProcesses."""
        return isolation_of(config, ABOUT) is Isolation.PROCESS

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        _check_parameters(config)
        path = files.artifact(config, MODEL_FILE)
        if isolation_of(config, ABOUT) is Isolation.PROCESS:
            return open_isolated(ABOUT.word, config, files, placement, self._store)
        meters = None if self._store is None else self._store.owned()
        try:
            return PythonInstance.open(path, config, files, placement, meters)
        except LoadFailed:
            if meters is not None:
                meters.release()
            raise


def _check_parameters(config: ModelConfig) -> None:
    value = parameter(config, _FORCE_CPU)
    if value not in ("", "yes", "no"):
        raise InvalidConfig(
            f"model '{config.name}': parameter {_FORCE_CPU} is '{value}', but must be 'yes' or "
            "'no' (inputs lie in host memory either way)"
        )


BACKEND = PythonBackend()

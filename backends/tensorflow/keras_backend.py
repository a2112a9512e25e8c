"""Backend `keras`: whole models in Keras's own files. Imports Keras in a model's process only."""

from typing import TYPE_CHECKING

from trivet.backends.api import InvalidConfig, ModelFiles, Placement, Signature
from trivet.backends.api.completion import complete_config
from trivet.backends.api.installed import require_installed
from trivet.backends.api.supplied import instance_config
from trivet.backends.process import Isolation, complete_isolated, isolation_of
from trivet.backends.tensorflow.about import KERAS
from trivet.backends.tensorflow.environment import set_environment
from trivet.protos.model_config_pb2 import ModelConfig

if TYPE_CHECKING:
    from trivet.backends.tensorflow.instance import TensorFlowInstance
    from trivet.backends.tensorflow.keras_model import KerasModel

require_installed("keras")
require_installed("tensorflow")


class KerasBackend:
    """Completes a config and opens in processes: only Keras can tell what a file's layers give."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig, LoadFailed."""
        if isolation_of(config, KERAS) is Isolation.PROCESS:
            return complete_isolated(KERAS.word, config, files)
        model = _load(config, files, None)
        return complete_config(config, model.inputs, model.outputs)

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> "TensorFlowInstance":
        """Raises LoadFailed, InvalidConfig."""
        model = _load(config, files, placement)
        complete_config(config, model.inputs, model.outputs)
        from trivet.backends.tensorflow.instance import TensorFlowInstance

        return TensorFlowInstance(model.function, Signature.from_config(instance_config(config)))


def _load(config: ModelConfig, files: ModelFiles, placement: Placement | None) -> "KerasModel":
    """With the threads and device of a placement, or only to be looked at."""
    there = [name for name in KERAS.model_files if (files.version_dir / name).exists()]
    path = files.artifact(config, there[0] if there else KERAS.model_files[0])
    if not path.is_file():
        raise InvalidConfig(
            f"model '{config.name}': '{path.name}' is a folder; a folder of TensorFlow's is "
            'served as 1/model.savedmodel by backend: "tensorflow"'
        )
    set_environment()
    from trivet.backends.tensorflow.keras_model import load_keras
    from trivet.backends.tensorflow.runtime import prepare

    prepare(config, placement or Placement(config.name, "KIND_CPU", 0, 1))
    return load_keras(config.name, path)


BACKEND = KerasBackend()

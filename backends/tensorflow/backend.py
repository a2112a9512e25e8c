"""Backend `tensorflow`: SavedModel folders. Imports TensorFlow where an instance is opened only."""

from typing import TYPE_CHECKING

from trivet.backends.api import ModelFiles, Placement, Signature
from trivet.backends.api.completion import complete_config
from trivet.backends.api.installed import require_installed
from trivet.backends.api.supplied import instance_config
from trivet.backends.tensorflow.choice import choose
from trivet.backends.tensorflow.environment import set_environment
from trivet.protos.model_config_pb2 import ModelConfig

if TYPE_CHECKING:
    from trivet.backends.tensorflow.instance import TensorFlowInstance

require_installed("tensorflow")


class TensorFlowBackend:
    """Completes a config by reading, in the server; opens in the process that the server starts."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig, LoadFailed."""
        signature = choose(config, files).signature
        return complete_config(config, signature.inputs, signature.outputs)

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> "TensorFlowInstance":
        """Raises LoadFailed, InvalidConfig."""
        # Without auto-completion nobody has compared the config with the file yet.
        self.complete(config, files)
        set_environment()
        from trivet.backends.tensorflow.instance import TensorFlowInstance
        from trivet.backends.tensorflow.runtime import load_operations, load_signature, prepare

        prepare(config, placement)
        load_operations(config, files)
        function = load_signature(config, files, choose(config, files))
        return TensorFlowInstance(function, Signature.from_config(instance_config(config)))


BACKEND = TensorFlowBackend()

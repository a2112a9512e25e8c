"""A backend whose models are their config: nothing is read from disk."""

from collections.abc import Callable
from dataclasses import dataclass

from trivet.backends.api import Instance, InvalidConfig, ModelFiles, Placement
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class ConfiguredBackend:
    """Opens instances from a checked config that lists all tensors."""

    check: Callable[[ModelConfig], None]
    """Raises InvalidConfig."""
    make: Callable[[ModelConfig, Placement], Instance]

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:  # noqa: ARG002 - the Backend protocol's name
        self.check(config)
        return config

    def open(
        self,
        config: ModelConfig,
        files: ModelFiles,  # noqa: ARG002
        placement: Placement,
    ) -> Instance:
        self.check(config)
        return self.make(config, placement)


def require_tensors(config: ModelConfig) -> None:
    """Raises InvalidConfig unless the config lists inputs and outputs."""
    if not config.input or not config.output:
        raise InvalidConfig(
            f"model '{config.name}': backend '{config.backend}' reads no model file, so the "
            f"config must list its inputs and outputs; it lists {len(config.input)} and "
            f"{len(config.output)}"
        )


def require_decoupled(config: ModelConfig) -> None:
    """Raises InvalidConfig for a model that may send one response only."""
    require_tensors(config)
    if not config.model_transaction_policy.decoupled:
        raise InvalidConfig(
            f"model '{config.name}': backend '{config.backend}' sends any number of responses; "
            "set model_transaction_policy { decoupled: true }"
        )

"""Backend `identity`: every input comes back as the output of the same position, without a copy."""

import threading

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    ComputeOnly,
    Instance,
    InvalidConfig,
    Placement,
    Tensor,
)
from trivet.backends.testing.configured import ConfiguredBackend, require_tensors
from trivet.backends.testing.wishes import Wishes
from trivet.protos.model_config_pb2 import ModelConfig


class IdentityInstance:
    """Answers each request with its own tensors. Parameters: see `wishes.py`."""

    def __init__(self, config: ModelConfig, placement: Placement) -> None:
        self._pairs = [
            (given.name, wanted.name)
            for given, wanted in zip(config.input, config.output, strict=False)
        ]
        self._wishes = Wishes.read(config, placement)
        self._closed = threading.Event()

    def execute(self, batch: Batch) -> None:
        batch.mark_gathered()
        self._wishes.grant(self._closed)
        batch.mark_computed()
        for index, request in enumerate(batch.requests):
            batch.respond(index, self._outputs(request))

    def _outputs(self, request: CheckedRequest) -> list[Tensor]:
        return [
            tensor.renamed(output_name, tensor.shape)
            for input_name, output_name in self._pairs
            if (tensor := request.inputs.get(input_name)) is not None
            and (not request.output_names or output_name in request.output_names)
        ]

    def is_ready(self) -> bool:
        return not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()


class PlainIdentityInstance(ComputeOnly, IdentityInstance):
    """Without wishes there is nothing to wait for."""


def make_instance(config: ModelConfig, placement: Placement) -> Instance:
    """The instance that fits the parameters."""
    kind = IdentityInstance if config.parameters else PlainIdentityInstance
    return kind(config, placement)


def check(config: ModelConfig) -> None:
    """Raises InvalidConfig unless every output has an input of its position and type."""
    require_tensors(config)
    if len(config.output) > len(config.input):
        raise InvalidConfig(
            f"model '{config.name}': identity has {len(config.output)} outputs for "
            f"{len(config.input)} inputs; output '{config.output[len(config.input)].name}' "
            "has no input of the same position"
        )
    for given, wanted in zip(config.input, config.output, strict=False):
        if given.data_type != wanted.data_type:
            raise InvalidConfig(
                f"model '{config.name}': output '{wanted.name}' must have the data_type of "
                f"input '{given.name}', which it returns"
            )


BACKEND = ConfiguredBackend(check, make_instance)

"""What a model's config asks of the sequence batcher, and what it asks of each request."""

from dataclasses import dataclass
from typing import Self

from trivet.backends.api import CheckedRequest, InvalidRequest, ModelFiles
from trivet.protos.model_config_pb2 import ModelConfig, ModelSequenceBatching
from trivet.server.scheduling.sequences.controls import Controls
from trivet.server.scheduling.sequences.lanes import slots_per_instance
from trivet.server.scheduling.sequences.sequence import Sequence
from trivet.server.scheduling.sequences.state import ImplicitState

DEFAULT_IDLE_US = 1_000_000
"""Triton's `max_sequence_idle_microseconds`."""


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """Parsed once from a checked config."""

    model_name: str
    batching: ModelSequenceBatching
    max_batch_size: int
    controls: Controls
    state: ImplicitState | None

    @classmethod
    def read(cls, config: ModelConfig, files: ModelFiles) -> Self | None:
        """None for a model without sequences. Reads initial states' files; raises InvalidConfig."""
        if config.WhichOneof("scheduling_choice") != "sequence_batching":
            return None
        return cls(
            config.name,
            config.sequence_batching,
            config.max_batch_size,
            Controls.from_config(config),
            ImplicitState.from_config(config, files),
        )

    @property
    def idle_ns(self) -> int:
        """How long a sequence may have no request."""
        return (self.batching.max_sequence_idle_microseconds or DEFAULT_IDLE_US) * 1000

    @property
    def is_iterative(self) -> bool:
        """Each request is a sequence of its own, that the model runs pass by pass."""
        return self.batching.iterative_sequence

    @property
    def slots_per_instance(self) -> int:
        """Sequences that an instance serves at a time."""
        return slots_per_instance(self.batching, self.max_batch_size)

    def whole(self, request: CheckedRequest, sequence_id: int) -> CheckedRequest:
        """A request of one row as a whole sequence, with all that the model sees of one."""
        inputs = dict(request.inputs)
        self.controls.add(inputs, (True, True, True), sequence_id)
        if self.state is not None:
            self.state.add(inputs, Sequence(sequence_id, 0), is_start=True)
        return CheckedRequest(
            request.model_name,
            request.model_version,
            request.id,
            inputs,
            sequence_id=sequence_id,
            sequence_start=True,
            sequence_end=True,
        )

    def check(self, request: CheckedRequest) -> None:
        """Raises InvalidRequest for a request that can be in no sequence."""
        if request.batch_size != 1:
            raise InvalidRequest(
                f"inference request to model '{self.model_name}' must specify batch-size 1 due to "
                f"requirements of sequence batcher, got {request.batch_size}"
            )
        if not request.sequence_id and not self.is_iterative:
            raise InvalidRequest(
                f"inference request to model '{self.model_name}' must specify a non-zero or "
                "non-empty correlation ID (parameter sequence_id)"
            )
        self.controls.check_id(request.sequence_id, self.model_name)

    def refuse_unknown(self, request: CheckedRequest) -> InvalidRequest:
        """For a request that continues a sequence which is not there (any more)."""
        return InvalidRequest(
            f"inference request for sequence {request.sequence_id} to model '{self.model_name}' "
            "must specify the START flag on the first request of the sequence"
        )

"""Control inputs: tensors that tell the model about a request's place in its sequence. Pure.

The flags' tensors are made once: a request adds references to them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from trivet.backends.api import DataType, InvalidRequest, Tensor
from trivet.protos.model_config_pb2 import ModelConfig, ModelSequenceBatching
from trivet.server.scheduling.sequences.sequence import CorrelationId

Control = ModelSequenceBatching.Control
Flags = tuple[bool, bool, bool]
"""START, READY and END, numbered as in the config's enum."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What is added to each request of a model."""

    flags: dict[Flags, dict[str, Tensor]]
    corrid: tuple[str, DataType] | None
    """Name and type of the input that carries the correlation id."""
    shape: tuple[int, ...]

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """Of a config that has been checked."""
        shape = (1, 1) if config.max_batch_size > 0 else (1,)
        pairs: list[tuple[int, Tensor, Tensor]] = []
        corrid = None
        for given in config.sequence_batching.control_input:
            for control in given.control:
                if control.kind == Control.CONTROL_SEQUENCE_CORRID:
                    corrid = (given.name, DataType.from_config(control.data_type))
                else:
                    values = flag_values(control)
                    no, yes = (Tensor.of(given.name, values[i].reshape(shape)) for i in (0, 1))
                    pairs.append((control.kind, no, yes))
        both = (False, True)
        combinations: list[Flags] = [(s, r, e) for s in both for r in both for e in both]
        flags = {
            each: {no.name: yes if each[kind] else no for kind, no, yes in pairs}
            for each in combinations
        }
        return cls(flags, corrid, shape)

    def add(
        self, inputs: dict[str, Tensor], flags: Flags, sequence_id: CorrelationId | None
    ) -> None:
        """Adds the tensors; an id of None is a placeholder's."""
        inputs.update(self.flags[flags])
        if self.corrid is not None:
            name, datatype = self.corrid
            value = (
                ("" if datatype is DataType.BYTES else 0) if sequence_id is None else sequence_id
            )
            inputs[name] = self._corrid_tensor(name, datatype, value)

    def _corrid_tensor(self, name: str, datatype: DataType, value: CorrelationId) -> Tensor:
        if datatype is DataType.BYTES:
            text = np.empty(self.shape, dtype=object)
            text.fill(str(value).encode())
            return Tensor(name, datatype, self.shape, text)
        return Tensor(name, datatype, self.shape, np.full(self.shape, value, dtype=datatype.dtype))

    def check_id(self, sequence_id: CorrelationId, model_name: str) -> None:
        """Raises InvalidRequest for an id that does not fit the input which is to carry it."""
        if self.corrid is None or self.corrid[1] is DataType.BYTES:
            return
        name, datatype = self.corrid
        bits = datatype.size * 8
        limit = 2 ** (bits if datatype.value.startswith("U") else bits - 1) - 1
        if isinstance(sequence_id, str):
            raise InvalidRequest(
                f"inference request to model '{model_name}' has the string correlation ID "
                f"'{sequence_id}', but the model takes {datatype.value} in '{name}'; use an integer"
            )
        if sequence_id > limit:
            raise InvalidRequest(
                f"inference request to model '{model_name}' has correlation ID {sequence_id}, "
                f"which does not fit {datatype.value} input '{name}'; the largest is {limit}"
            )


def flag_values(control: Control) -> np.ndarray:
    """The control's values for false and true, in its own type; empty if it gives none."""
    for values, dtype in (
        (control.int32_false_true, np.int32),
        (control.fp32_false_true, np.float32),
        (control.bool_false_true, np.bool_),
    ):
        if len(values):
            return np.array(list(values), dtype=dtype)
    return np.empty(0, dtype=np.int32)

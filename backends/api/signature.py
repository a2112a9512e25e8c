"""What a model takes and gives, as the request path needs it: parsed once from its config."""

from dataclasses import dataclass, field
from functools import cached_property

from trivet.backends.api.config import parameter
from trivet.backends.api.datatype import DataType
from trivet.backends.api.errors import InvalidConfig
from trivet.backends.api.tensor import Shape
from trivet.protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dims` are without the batch dimension; -1 is a variable one.

    `model_dims` is the shape the model itself sees, `dims` the one clients use; they differ only
    where the config has a `reshape`.
    """

    name: str
    datatype: DataType
    dims: Shape
    model_dims: Shape
    optional: bool = False
    label_filename: str = ""
    is_ragged: bool = False
    """Requests of different shapes are joined, their elements in one row."""

    @property
    def is_reshaped(self) -> bool:
        return self.dims != self.model_dims

    @classmethod
    def from_config(cls, tensor: ModelInput | ModelOutput) -> "TensorSpec":
        dims = tuple(tensor.dims)
        reshaped = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else dims
        return cls(
            tensor.name,
            DataType.from_config(tensor.data_type),
            dims,
            reshaped,
            optional=isinstance(tensor, ModelInput) and tensor.optional,
            is_ragged=isinstance(tensor, ModelInput) and tensor.allow_ragged_batch,
            label_filename=tensor.label_filename if isinstance(tensor, ModelOutput) else "",
        )


COMPUTE_PARAMETER = "compute_batch_size"
"""Of a config: how many rows are computed at once; larger requests are computed in parts."""


def compute_batch_size(config: ModelConfig) -> int:
    """The parameter, max_batch_size where it is not given. Raises InvalidConfig."""
    given = parameter(config, COMPUTE_PARAMETER)
    if not given:
        return config.max_batch_size
    if not given.isdecimal() or not 1 <= int(given) <= max(1, config.max_batch_size):
        raise InvalidConfig(
            f"model '{config.name}': parameter {COMPUTE_PARAMETER} is '{given[:64]}'; it must be "
            f"a number from 1 to max_batch_size {config.max_batch_size}"
        )
    return int(given)


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name, in config order."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    max_batch_size: int
    """0: the model does not batch, shapes are literal."""
    decoupled: bool
    compute_batch_size: int = 0
    """How many rows are computed at once, as far as several requests are joined."""
    batching: bool = field(init=False)
    """Whether tensors have a batch dimension."""

    def __post_init__(self) -> None:
        # Not a property: it is asked several times for each request.
        object.__setattr__(self, "batching", self.max_batch_size > 0)
        if not self.compute_batch_size:
            object.__setattr__(self, "compute_batch_size", self.max_batch_size)

    @classmethod
    def from_config(cls, config: ModelConfig) -> "Signature":
        return cls(
            {tensor.name: TensorSpec.from_config(tensor) for tensor in config.input},
            {tensor.name: TensorSpec.from_config(tensor) for tensor in config.output},
            config.max_batch_size,
            config.model_transaction_policy.decoupled,
            compute_batch_size(config),
        )

    @cached_property
    def required_inputs(self) -> frozenset[str]:
        return frozenset(name for name, spec in self.inputs.items() if not spec.optional)

    def full_dims(self, spec: TensorSpec) -> Shape:
        """The shape clients see: with a leading -1 when the model batches."""
        return (-1, *spec.dims) if self.batching else spec.dims

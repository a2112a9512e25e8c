"""How large a dimension may be, where a model file says so. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trivet.backends.api.errors import InvalidConfig, InvalidRequest
from trivet.backends.api.supplied import instance_config
from trivet.backends.api.tensor import Shape
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class Extent:
    """The sizes that a variable dimension may have."""

    low: int = 0
    high: int | None = None
    """None: any."""

    @property
    def is_free(self) -> bool:
        """Whether any size is taken."""
        return self.low <= 1 and self.high is None

    def holds(self, size: int) -> bool:
        """Whether a size is taken."""
        return self.low <= size and (self.high is None or size <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return f"{self.low} to {self.high}" if self.low else f"up to {self.high}"


FREE = Extent()
Extents = tuple[Extent, ...]
"""One for each dimension; none where nothing is limited."""


def limited(extents: Iterable[Extent]) -> Extents:
    """The extents, or none where all of them are free."""
    found = tuple(extents)
    return () if all(extent.is_free for extent in found) else found


def largest_batch(tensors: Iterable[Extents]) -> int | None:
    """How many rows tensors can have that begin with the batch; None: any number."""
    return min((e[0].high for e in tensors if e and e[0].high is not None), default=None)


def check_batch(config: ModelConfig, tensors: Mapping[str, Extents]) -> None:
    """Raises InvalidConfig where batches of a config are not what the model file takes."""
    if config.max_batch_size == 0:
        return
    for name, extents in tensors.items():
        if not extents:
            continue
        if extents[0].low > 1:
            raise InvalidConfig(
                f"model '{config.name}': max_batch_size is {config.max_batch_size}, but the first "
                f"dimension of '{name}' is {extents[0]} in the model file, and a batch may be of "
                "one row; set max_batch_size: 0 or export the model with a batch dimension from 1"
            )
        if not extents[0].holds(config.max_batch_size):
            raise InvalidConfig(
                f"model '{config.name}': max_batch_size is {config.max_batch_size}, but the first "
                f"dimension of '{name}' is {extents[0]} in the model file; lower it, or export the "
                "model with a larger bound"
            )


def check_dims(config: ModelConfig, name: str, dims: Sequence[int], extents: Extents) -> None:
    """Raises InvalidConfig where fixed dims (without a batch) are not what the model file takes."""
    of_rows = extents[1:] if config.max_batch_size else extents
    for place, (dim, extent) in enumerate(zip(dims, of_rows, strict=False)):
        if dim >= 0 and not extent.holds(dim):
            raise InvalidConfig(
                f"model '{config.name}': '{name}' has dims {list(dims)} in the config, but the "
                f"model file takes {extent} in place {place}"
            )


def check_config(config: ModelConfig, tensors: Mapping[str, Extents]) -> None:
    """Both, for a file that says no more of its tensors. Raises InvalidConfig."""
    check_batch(config, tensors)
    for tensor in instance_config(config).input:
        shape = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        check_dims(config, tensor.name, shape, tensors.get(tensor.name, ()))


def check_shape(name: str, shape: Shape, extents: Extents) -> None:
    """Raises InvalidRequest, naming the border, for a shape that the model file does not take."""
    for place, (size, extent) in enumerate(zip(shape, extents, strict=False)):
        if not extent.holds(size):
            raise InvalidRequest(
                f"input '{name}' of shape {list(shape)} has {size} in dimension {place}, where the "
                f"model takes {extent}; export it with wider bounds to have it take others"
            )

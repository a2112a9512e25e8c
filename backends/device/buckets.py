"""CUDA graphs: one for each size of batch that the config lists, launched as a whole.

A graph has fixed shapes and addresses. So it has memory of its own, which inputs are copied into
and outputs out of; a batch that is smaller than the graph's is computed with the rows of an earlier
one behind it, which nobody reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trivet.backends.api import Batch, CopyKind, DeviceArray, InvalidConfig, Shape, Stream
from trivet.backends.api.signature import compute_batch_size
from trivet.backends.device.lane import Lane
from trivet.protos.model_config_pb2 import ModelConfig, ModelOptimizationPolicy

DEFAULT_BATCHES = (1, 2, 3, 4)
"""Triton's, where `cuda.graphs` is on without a `graph_spec`; those that the model takes."""
Spec = ModelOptimizationPolicy.Cuda.GraphSpec


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shapes of one graph, with batch dimension if the model has one."""

    shapes: Mapping[str, Shape]
    lower: Mapping[str, Shape] = field(default_factory=dict)
    """The smallest that it computes; empty: exactly `shapes`."""

    def takes(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether inputs of these shapes may be computed by it: all but rows must be equal."""
        return shapes.keys() == self.shapes.keys() and all(
            shape[1:] == self.shapes[name][1:]
            and self.lower.get(name, self.shapes[name])[:1] <= shape[:1] <= self.shapes[name][:1]
            for name, shape in shapes.items()
        )


def buckets_of(config: ModelConfig, shapes: Mapping[str, Shape]) -> list[Bucket]:
    """The graphs that a config asks for, smallest first; `shapes` are the model's own, with -1 for
    variable dimensions. Raises InvalidConfig."""
    cuda = config.optimization.cuda
    if not cuda.graphs:
        return []
    specs = list(cuda.graph_spec)
    if not specs:
        most = max(compute_batch_size(config), 0)
        sizes = [size for size in DEFAULT_BATCHES if size <= most] or [0]
        specs = [Spec(batch_size=size) for size in sizes]
    buckets = [_bucket(config, shapes, spec) for spec in specs]
    return sorted(buckets, key=lambda bucket: [s[:1] for s in bucket.shapes.values()])


def _bucket(config: ModelConfig, own: Mapping[str, Shape], spec: Spec) -> Bucket:
    shapes = {name: _shape(config, spec, name, shape) for name, shape in own.items()}
    if not spec.HasField("graph_lower_bound"):
        return Bucket(shapes)
    lower = Spec(batch_size=spec.graph_lower_bound.batch_size)
    for name, shape in spec.graph_lower_bound.input.items():
        lower.input[name].dim.extend(shape.dim)
    return Bucket(shapes, {name: _shape(config, lower, name, each) for name, each in own.items()})


def _shape(config: ModelConfig, spec: Spec, name: str, own: Shape) -> Shape:
    if name in spec.input:
        dims = tuple(spec.input[name].dim)
    else:
        dims = own[1:] if config.max_batch_size else own
    shape = (spec.batch_size, *dims) if config.max_batch_size else dims
    if -1 in shape or (config.max_batch_size and not 0 < shape[0] <= config.max_batch_size):
        raise InvalidConfig(
            f"model '{config.name}': optimization.cuda.graph_spec gives input '{name}' the shape "
            f"{list(shape)}; it needs a batch_size from 1 to {config.max_batch_size} and, for "
            "variable dimensions, an input entry with their dim"
        )
    return shape


def fitting(graphs: Sequence["StaticRun"], inputs: Mapping[str, DeviceArray]) -> "StaticRun | None":
    """The smallest graph that computes these inputs, if there is one."""
    if not graphs:
        return None
    shapes = {name: array.shape for name, array in inputs.items()}
    return next((graph for graph in graphs if graph.bucket.takes(shapes)), None)


@dataclass(slots=True)
class StaticRun:
    """A captured graph and its memory. Owned by the instance's thread."""

    bucket: Bucket
    inputs: Mapping[str, DeviceArray]
    outputs: Mapping[str, DeviceArray]
    launch: Callable[[Stream], None]
    close: Callable[[], None]

    def run(
        self, lane: Lane, batch: Batch, inputs: Mapping[str, DeviceArray]
    ) -> dict[str, DeviceArray]:
        """Computes inputs that its bucket takes: copies in, launches, copies out, all in order."""
        for name, array in inputs.items():
            lane.stream.copy(self.inputs[name].address, array.address, array.nbytes)
            batch.copied(CopyKind.DEVICE, array.nbytes)
        self.launch(lane.stream)
        made: dict[str, DeviceArray] = {}
        for name, array in self.outputs.items():
            seen = array.rows(0, batch.size) if batch.batching else array
            made[name] = lane.empty(seen.dtype, seen.shape)
            lane.stream.copy(made[name].address, seen.address, seen.nbytes)
            batch.copied(CopyKind.DEVICE, seen.nbytes)
        return made

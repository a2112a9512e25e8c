"""CUDA graphs of an engine: one for each batch size that the config lists, launched as a whole.

A graph has fixed shapes and addresses. So it has a context and memory of its own; a batch that is
smaller than the graph's is computed with the rows of an earlier one behind it, which nobody reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.backends.api import Batch, CopyKind, DeviceArray, InvalidConfig, Shape
from trivet.backends.device.driver import Graph
from trivet.backends.device.lane import Lane
from trivet.backends.tensorrt.context import EngineContext
from trivet.backends.tensorrt.description import Description
from trivet.protos.model_config_pb2 import ModelConfig, ModelOptimizationPolicy

DEFAULT_BATCHES = (1, 2, 3, 4)
"""Triton's, where `cuda.graphs` is on without a `graph_spec`; those that the model takes."""
Spec = ModelOptimizationPolicy.Cuda.GraphSpec


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shapes of one graph, and the smallest ones that it computes. Without batches, both are
    whole shapes."""

    shapes: Mapping[str, Shape]
    lower: Mapping[str, Shape] = field(default_factory=dict)
    """Empty: exactly `shapes`."""

    def takes(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether inputs of these shapes may be computed by it: all but rows must be equal."""
        return all(
            shape[1:] == self.shapes[name][1:]
            and self.lower.get(name, self.shapes[name])[:1] <= shape[:1] <= self.shapes[name][:1]
            for name, shape in shapes.items()
        )


def buckets_of(config: ModelConfig, engine: Description) -> list[Bucket]:
    """The graphs that a config asks for, smallest first. Raises InvalidConfig.

    Engines with shape tensors have none: their shapes are not known when a graph is made.
    """
    cuda = config.optimization.cuda
    if not cuda.graphs or any(t.is_shape_tensor for t in (*engine.inputs, *engine.outputs)):
        return []
    specs = list(cuda.graph_spec)
    if not specs:
        most = max(config.max_batch_size, 0)
        sizes = [size for size in DEFAULT_BATCHES if size <= most] or [0]
        specs = [Spec(batch_size=size) for size in sizes]
    buckets = [_bucket(config, engine, spec) for spec in specs]
    return sorted(buckets, key=lambda bucket: [s[:1] for s in bucket.shapes.values()])


def _bucket(config: ModelConfig, engine: Description, spec: Spec) -> Bucket:
    shapes = {t.name: _shape(config, spec, t.name, t.shape) for t in engine.inputs}
    if not spec.HasField("graph_lower_bound"):
        return Bucket(shapes)
    lower = Spec(batch_size=spec.graph_lower_bound.batch_size)
    for name, shape in spec.graph_lower_bound.input.items():
        lower.input[name].dim.extend(shape.dim)
    return Bucket(shapes, {t.name: _shape(config, lower, t.name, t.shape) for t in engine.inputs})


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


class GraphRun:
    """One captured graph and its memory. Owned by the instance's thread."""

    def __init__(
        self, bucket: Bucket, graph: Graph, inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray], lane: Lane,
    ) -> None:  # fmt: skip
        self.bucket = bucket
        self._graph = graph
        self._inputs = inputs
        self._outputs = outputs
        self._lane = lane

    def run(
        self, batch: Batch, inputs: Mapping[str, DeviceArray], *, batching: bool
    ) -> dict[str, DeviceArray]:
        """Computes inputs that its bucket takes: copies in, launches, copies out, all in order."""
        stream = self._lane.stream
        for name, array in inputs.items():
            stream.copy(self._inputs[name].address, array.address, array.nbytes)
            batch.copied(CopyKind.DEVICE, array.nbytes)
        self._graph.launch(stream)
        made: dict[str, DeviceArray] = {}
        for name, array in self._outputs.items():
            seen = array.rows(0, batch.size) if batching else array
            made[name] = self._lane.empty(seen.dtype, seen.shape)
            stream.copy(made[name].address, seen.address, seen.nbytes)
            batch.copied(CopyKind.DEVICE, seen.nbytes)
        return made

    def close(self) -> None:
        """Frees the graph."""
        self._graph.close()


def capture(lane: Lane, bucket: Bucket, engine: Description, context: EngineContext) -> GraphRun:
    """Runs a context once, as TensorRT wants it, and notes its work down."""
    inputs = {
        tensor.name: lane.empty(tensor.datatype.dtype, bucket.shapes[tensor.name])
        for tensor in engine.inputs
    }
    context.set_inputs(inputs, {})
    outputs = context.allocate(context.output_shapes())
    if context.has_late_outputs:
        raise InvalidConfig(
            "optimization.cuda.graphs is set, but the engine has outputs whose shapes depend on "
            "values, which no CUDA graph can have; leave it out"
        )
    context.run(lane.stream)
    lane.wait()
    stream = lane.gpu.new_stream()
    lane.gpu.begin_capture(stream)
    try:
        context.run(stream)
    finally:
        graph = lane.gpu.end_capture(stream)
    return GraphRun(bucket, graph, inputs, outputs, lane)

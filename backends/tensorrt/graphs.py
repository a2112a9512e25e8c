"""CUDA graphs of an engine: a context and memory for each."""

from trivet.backends.api import InvalidConfig
from trivet.backends.device.buckets import Bucket, StaticRun, buckets_of
from trivet.backends.device.lane import Lane
from trivet.backends.tensorrt.context import EngineContext
from trivet.backends.tensorrt.description import Description
from trivet.protos.model_config_pb2 import ModelConfig


def engine_buckets(config: ModelConfig, engine: Description) -> list[Bucket]:
    """The graphs that a config asks for. Raises InvalidConfig.

    Engines with shape tensors have none: their shapes are not known when a graph is made.
    """
    if any(tensor.is_shape_tensor for tensor in (*engine.inputs, *engine.outputs)):
        return []
    return buckets_of(config, {tensor.name: tensor.shape for tensor in engine.inputs})


def capture(lane: Lane, bucket: Bucket, engine: Description, context: EngineContext) -> StaticRun:
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
    return StaticRun(bucket, inputs, outputs, graph.launch, graph.close)

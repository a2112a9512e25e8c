"""Loads a frozen graph in the process of an instance, as a function of its named tensors."""

from collections.abc import Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles
from trivet.backends.api.content import describe_content
from trivet.backends.tensorflow.about import GRAPH_FILE
from trivet.backends.tensorflow.graph_def import initial_operations
from trivet.backends.tensorflow.runtime import (
    LOADING_ERRORS,
    Function,
    Tensors,
    reason,
    refuse_unknown_operation,
)
from trivet.protos.model_config_pb2 import ModelConfig


def load_graph_def(config: ModelConfig, files: ModelFiles) -> Function:
    """Raises LoadFailed, or InvalidConfig for tensors that the graph does not have."""
    path = files.artifact(config, GRAPH_FILE)
    where = f"model '{config.name}' version {files.version}"
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    except DecodeError as error:
        raise LoadFailed(
            f"{where}: '{path.name}' is not a whole GraphDef; it is {describe_content(path)}"
        ) from error
    except LOADING_ERRORS as error:
        refuse_unknown_operation(where, path, error)
        raise LoadFailed(
            f"{where}: TensorFlow {tf.__version__} cannot load '{path.name}': {reason(error, path)}"
        ) from error
    names = [tensor.name for tensor in config.input]
    inputs = [_tensor(config, wrapped.graph, name) for name in names]
    outputs = {each.name: _tensor(config, wrapped.graph, each.name) for each in config.output}
    for operation in initial_operations(config, files):
        wrapped.prune([], wrapped.graph.get_operation_by_name(operation))()
    function = wrapped.prune(inputs, outputs)

    def call(tensors: Tensors) -> Tensors:
        computed: Tensors = function(*(tensors[name] for name in names))
        return computed

    return call


def _tensor(config: ModelConfig, graph: tf.Graph, name: str) -> tf.Tensor:
    """By the name of its operation, as Triton's configs have it, or with `:0`."""
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError):
        known = _some([each.name for each in graph.get_operations() if each.type == "Placeholder"])
        raise InvalidConfig(
            f"model '{config.name}': the graph has no tensor '{name}'; its placeholders are {known}"
        ) from None


def _some(names: Sequence[str]) -> list[str]:
    return list(names[:20])

"""Tiny .tflite files, written by LiteRT's own schema without TensorFlow."""

from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT32, INT8, STRING = (
    schema.TensorType.FLOAT32,
    schema.TensorType.INT8,
    schema.TensorType.STRING,
)


def tflite_model(
    dims: Sequence[int] = (-1, 4), signatures: Sequence[str] = ("serving_default",)
) -> bytes:
    """y = x + x; `in` and `out` to those who ask by a signature. -1: of any size."""
    add = schema.OperatorT()
    add.inputs, add.outputs = [0, 0], [1]
    add.builtinOptionsType = schema.BuiltinOptions.AddOptions
    add.builtinOptions = schema.AddOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    tensors = [_tensor("x", dims), _tensor("y", dims)]
    return _file(tensors, [0], [1], [add], [code], signatures)


def identity_model(kind: int, dims: Sequence[int] = (-1, 4)) -> bytes:
    """The input is the output, as TensorFlow's converter writes it."""
    return _file([_tensor("x", dims, kind)], [0], [0], [], [], ())


def constant_model() -> bytes:
    """Gives the input, and one row whatever the input is."""
    tensors = [_tensor("x", (1, 4)), _tensor("fixed", (1, 4))]
    tensors[1].buffer = 1
    return _file(tensors, [0], [0, 1], [], [], ())


def custom_model() -> bytes:
    """Uses an operation that LiteRT does not have."""
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "MyOwn"
    tensors = [_tensor("x", (1, 4)), _tensor("y", (1, 4))]
    return _file(tensors, [0], [1], [operator], [code], ())


def _tensor(name: str, dims: Sequence[int], kind: int = FLOAT32) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, kind, 0
    tensor.shape = [max(1, size) for size in dims]
    if -1 in dims:
        tensor.shapeSignature = list(dims)
    return tensor


def _file(
    tensors: Sequence[schema.TensorT],
    inputs: Sequence[int],
    outputs: Sequence[int],
    operators: Sequence[schema.OperatorT],
    codes: Sequence[schema.OperatorCodeT],
    signatures: Sequence[str],
) -> bytes:
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, operators
    graph.inputs, graph.outputs = inputs, outputs
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, codes, [graph]
    values = schema.BufferT()
    values.data = np.frombuffer(np.ones(4, np.float32).tobytes(), np.uint8)
    model.buffers = [schema.BufferT(), values]
    model.signatureDefs = [_signature(name, inputs, outputs) for name in signatures]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _signature(name: str, inputs: Sequence[int], outputs: Sequence[int]) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = name, 0
    signature.inputs = [_entry("in", place) for place in inputs]
    signature.outputs = [_entry("out", place) for place in outputs]
    return signature


def _entry(name: str, place: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, place
    return entry

"""A .tflite file as a function of named arrays: one of its signatures, or the graph itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from trivet.backends.api import DataType, InvalidConfig, Shape
from trivet.backends.api.completion import ModelTensor

_USUAL_SIGNATURE = "serving_default"

Arrays = Mapping[str, np.ndarray]


class Program(Protocol):
    """What a file offers. Calls are for one thread at a time: the interpreter keeps the tensors."""

    inputs: Sequence[ModelTensor]
    outputs: Sequence[ModelTensor]

    def resize(self, batch_size: int) -> None:
        """Gives all inputs so many rows. Raises RuntimeError where the graph does not allow it."""

    def call(self, arrays: Arrays) -> Arrays:
        """The outputs, as copies."""


class SignatureProgram:
    """A signature: its names are those that the model was made with."""

    def __init__(self, interpreter: Interpreter, name: str) -> None:
        self._runner = interpreter.get_signature_runner(name)
        self.inputs: Sequence[ModelTensor] = _tensors(self._runner.get_input_details())
        self.outputs: Sequence[ModelTensor] = _tensors(self._runner.get_output_details())

    def resize(self, batch_size: int) -> None:
        arrays = {
            tensor.name: np.zeros((batch_size, *(tensor.shape or ())[1:]), tensor.datatype.dtype)
            for tensor in self.inputs
        }
        rows = {name: values.shape[:1] for name, values in self.call(arrays).items()}
        _check_rows(rows, batch_size)

    def call(self, arrays: Arrays) -> Arrays:
        outputs: Arrays = self._runner(**arrays)
        return outputs


class GraphProgram:
    """The graph of a file without signatures: tensors have the names of their nodes."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        inputs = {each["name"]: each for each in interpreter.get_input_details()}
        outputs = {each["name"]: each for each in interpreter.get_output_details()}
        self._input_places = {name: each["index"] for name, each in inputs.items()}
        self._output_places = {name: each["index"] for name, each in outputs.items()}
        self.inputs: Sequence[ModelTensor] = _tensors(inputs)
        self.outputs: Sequence[ModelTensor] = _tensors(outputs)
        self._shapes: dict[str, Shape] = {}

    @classmethod
    def of(cls, interpreter: Interpreter) -> Self:
        """The same, with its memory laid out for the shapes of the file."""
        interpreter.allocate_tensors()
        return cls(interpreter)

    def resize(self, batch_size: int) -> None:
        self._lay_out({t.name: (batch_size, *(t.shape or ())[1:]) for t in self.inputs})
        details = self._interpreter.get_output_details()
        _check_rows({each["name"]: tuple(each["shape"][:1]) for each in details}, batch_size)

    def call(self, arrays: Arrays) -> Arrays:
        shapes = {name: values.shape for name, values in arrays.items()}
        if shapes != self._shapes:
            self._lay_out(shapes)
        for name, values in arrays.items():
            self._interpreter.set_tensor(self._input_places[name], values)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(place) for name, place in self._output_places.items()
        }

    def _lay_out(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = {}
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._input_places[name], shape)
        self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)


def open_program(model_name: str, content: bytes, signature: str, num_threads: int) -> Program:
    """The signature asked for, else the usual one, else the only one, else the graph.

    Raises ValueError for bytes that are no model, RuntimeError for one that LiteRT cannot run,
    InvalidConfig for a signature that is not there and for tensors that cannot be sent.
    """
    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    names = list(interpreter.get_signature_list())
    name = signature or _USUAL_SIGNATURE
    if not names and not signature:
        return GraphProgram.of(interpreter)
    if name not in names and len(names) == 1 and not signature:
        name = names[0]
    if name not in names:
        raise InvalidConfig(
            f"model '{model_name}': the file has no signature '{name}', but {names}; name one of "
            "them in parameter 'signature'"
        )
    interpreter.allocate_tensors()
    return SignatureProgram(interpreter, name)


def _tensors(details: Mapping[str, Mapping[str, Any]]) -> list[ModelTensor]:
    """Raises InvalidConfig for one of a type that no client can send."""
    return [
        ModelTensor(name, _datatype(name, each["dtype"]), _shape(each))
        for name, each in sorted(details.items())
    ]


def _datatype(name: str, dtype: type[np.generic]) -> DataType:
    try:
        return DataType.from_numpy(np.dtype(dtype))
    except ValueError:
        raise InvalidConfig(
            f"tensor '{name}' of the model file is {np.dtype(dtype).name}, a type that cannot be "
            "sent; convert the model with others"
        ) from None


def _shape(detail: Mapping[str, Any]) -> Shape:
    """With -1 where the file leaves a size open. Older files have no such signature."""
    signature = detail["shape_signature"]
    return tuple(int(size) for size in (signature if len(signature) else detail["shape"]))


def _check_rows(rows: Mapping[str, Shape], batch_size: int) -> None:
    for name, found in rows.items():
        if found != (batch_size,):
            raise RuntimeError(f"output '{name}' does not grow with the batch")

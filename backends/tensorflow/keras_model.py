"""Loads a model from a file of Keras's, as a function of named tensors. Runs no code from the file.

Tensors have the names that `model.export` gives them: inputs their own, outputs the keys of a dict
or output_0, output_1 ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

import keras
import tensorflow as tf

from trivet.backends.api import DataType, InvalidConfig, LoadFailed
from trivet.backends.api.completion import ModelTensor
from trivet.backends.api.content import describe_content
from trivet.backends.tensorflow.runtime import LOADING_ERRORS, Function, reason

_EXPORT = (
    'load it where its code is, `model.export("model.savedmodel")`, and put that folder there '
    "instead: it needs no code"
)


@dataclass(frozen=True, slots=True)
class KerasModel:
    """A model that is ready to be called."""

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    function: Function


def load_keras(name: str, path: Path) -> KerasModel:
    """Raises LoadFailed, or InvalidConfig for a model that cannot be served."""
    model = _load(name, path)
    if not getattr(model, "inputs", None):
        raise InvalidConfig(
            f"model '{name}': '{path.name}' does not say what it takes: it was never built with "
            "an input; call it once before saving, or begin with keras.Input"
        )
    return _traced(name, model)


def _load(name: str, path: Path) -> "keras.Model":
    try:
        return keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except LOADING_ERRORS as error:
        raise LoadFailed(f"model '{name}': {_why(path, error)}") from error


def _why(path: Path, error: Exception) -> str:
    """The sentence that helps."""
    text = str(error)
    if path.suffix == ".keras" and not is_zipfile(path):
        return (
            f"'{path.name}' is no whole .keras file, but {describe_content(path)}; a file that "
            "was cut off while it was copied looks so. Copy it again"
        )
    if "No model config found" in text:
        return (
            f"'{path.name}' has weights only, without the layers; save the whole model with "
            '`model.save("model.keras")`'
        )
    if "Lambda" in text and "safe_mode" in text:
        return (
            f"'{path.name}' has a Lambda layer, Python code inside the file, which is never run "
            f"here; {_EXPORT}"
        )
    if "Could not locate class" in text or "Unknown layer" in text or "custom_object" in text:
        return (
            f"'{path.name}' has a layer of the author's own, whose code is not in it "
            f"({_named(text, error, path)}); {_EXPORT}"
        )
    return (
        f"Keras {keras.__version__} cannot load '{path.name}' (it is {describe_content(path)}): "
        f"{reason(error, path)}"
    )


def _named(text: str, error: Exception, path: Path) -> str:
    """The line that tells which one."""
    lines = [line for line in text.splitlines() if "locate" in line or "Unknown" in line]
    return lines[0].split(". ")[0] if lines else reason(error, path)


def _traced(name: str, model: "keras.Model") -> KerasModel:
    keeps_state = any(getattr(layer, "stateful", False) for layer in model.layers)
    specs = {
        each.name: tf.TensorSpec(_shape(each.shape, keeps_state=keeps_state), each.dtype, each.name)
        for each in model.inputs
    }
    # A Sequential model that has just been loaded has no `input` yet.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def call(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        given = dict(zip(specs, tensors, strict=True))
        taken = keras.tree.map_structure(lambda each: given[each.name], structure)
        return _by_name(model(taken, training=False))

    try:
        concrete = tf.function(call, autograph=False).get_concrete_function(*specs.values())
    except LOADING_ERRORS as error:
        raise LoadFailed(
            f"model '{name}': Keras {keras.__version__} loads the model, but TensorFlow cannot "
            f"compute it: {reason(error, Path(name))}"
        ) from error

    def function(tensors: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        outputs: Mapping[str, tf.Tensor] = concrete(*(tensors[each] for each in specs))
        return outputs

    outputs = concrete.structured_outputs
    return KerasModel(
        tuple(_tensor(name, each, spec) for each, spec in specs.items()),
        tuple(_tensor(name, each, outputs[each]) for each in outputs),
        function,
    )


def _shape(shape: Sequence[int | None], *, keeps_state: bool) -> list[int | None]:
    """Keras takes the first dimension for the batch's, and records of which size the first batch
    was; only a model that remembers its rows is bound to that."""
    return list(shape) if keeps_state or not shape else [None, *shape[1:]]


def _by_name(outputs: object) -> dict[str, tf.Tensor]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    return {f"output_{number}": tensor for number, tensor in enumerate(flat)}


def _tensor(model_name: str, name: str, spec: tf.TensorSpec) -> ModelTensor:
    try:
        datatype = DataType.from_numpy(spec.dtype.as_numpy_dtype().dtype)
    except (ValueError, AttributeError):
        is_text = spec.dtype == tf.string
        if not is_text:
            raise InvalidConfig(
                f"model '{model_name}': tensor '{name}' is {spec.dtype.name}, a type that cannot "
                "be sent"
            ) from None
        datatype = DataType.BYTES
    if spec.shape.rank is None:
        return ModelTensor(name, datatype, None)
    return ModelTensor(name, datatype, tuple(-1 if d is None else d for d in spec.shape.as_list()))

"""Makes models with TensorFlow and Keras, and has this project's backends compute them: a program.

It runs in a process of its own, where TensorFlow is imported once for all models; nothing that
pytest imports may import this. `tensorflow_results.py` starts it and reads what it has written.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trivet.backends.tensorflow.environment import set_environment

set_environment()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from google.protobuf import text_format  # noqa: E402

from trivet.backends.api import (  # noqa: E402
    Batch,
    CheckedRequest,
    ModelFiles,
    Placement,
    ServingError,
    Tensor,
)
from trivet.backends.api.config import to_json_dict  # noqa: E402
from trivet.backends.registry import find_backend  # noqa: E402
from trivet.protos.model_config_pb2 import ModelConfig  # noqa: E402

HERE = 'parameters { key: "isolation" value { string_value: "none" } }'
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4) / 7

Arrays = Mapping[str, np.ndarray]


class Texts(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    @tf.function(  # type: ignore[misc]
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None, 2], tf.bfloat16, name="w"),
        ]
    )
    def serve(self, text: tf.Tensor, w: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"upper": tf.strings.upper(text), "doubled": w * 2}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="text")])  # type: ignore[misc]
    def one(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"same": text}


@keras.saving.register_keras_serializable(package="author")
class Own(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * 2


def dense() -> "keras.Model":
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [keras.layers.Input((4,), name="x"), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
    )


def branching() -> "keras.Model":
    a = keras.Input((4,), name="a")
    b = keras.Input((None, 2), name="b", dtype="int32")
    largest = keras.layers.GlobalMaxPooling1D()(keras.ops.cast(b, "float32"))
    return keras.Model({"a": a, "b": b}, {"sum": keras.layers.Dense(1)(a), "largest": largest})


def unbuilt() -> "keras.Model":
    """Knows the shape of the first batch that it saw, as after `fit`, and no other."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model(np.ones((5, 4), np.float32))
    return model


def one_layer(layer: "keras.layers.Layer") -> "keras.Model":
    given = keras.Input((4,), name="x")
    return keras.Model(given, layer(given))


def make(folder: Path) -> dict[str, Arrays]:
    """The repository, and what the libraries themselves compute of INPUTS."""
    model = dense()
    predicted = {"output_0": model.predict(ROWS, verbose=0)}
    model.export(place(folder, "exported", "model.savedmodel"), verbose=False)
    model.save(place(folder, "zipped", "model.keras"))
    model.save(place(folder, "older", "model.h5"))
    model.save_weights(folder / "only.weights.h5")
    (folder / "only.weights.h5").rename(place(folder, "weights", "model.h5"))
    two = branching()
    two.save(place(folder, "branching", "model.keras"))
    first = unbuilt()
    first.save(place(folder, "unbuilt", "model.keras"))
    one_layer(keras.layers.Lambda(lambda x: x * 2)).save(place(folder, "lambda", "model.keras"))
    one_layer(Own()).save(place(folder, "own", "model.keras"))
    keras.saving.get_custom_objects().clear()
    texts = Texts()
    tf.saved_model.save(
        texts, place(folder, "texts", "."), {"serving_default": texts.serve, "one": texts.one}
    )
    convert(model, folder)
    return {
        "exported": predicted,
        "zipped": predicted,
        "older": predicted,
        "branching": {k: v.numpy() for k, v in two(INPUTS["branching"]).items()},
        "unbuilt": {"output_0": first(ROWS).numpy()},
    }


def convert(model: "keras.Model", folder: Path) -> None:
    """TensorFlow Lite's files, which other tests open."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    Path(place(folder, "lite", "model.tflite")).write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in ROWS)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(place(folder, "quantised", "model.tflite")).write_bytes(converter.convert())


def spoil(folder: Path) -> None:
    """Models that are not whole, or ask for more than there is."""
    whole = Path(place(folder, "exported", "model.savedmodel"))
    variables = "variables/variables.data-00000-of-00001"
    half(folder, "cut_variables", whole, variables)
    half(folder, "cut_index", whole, "variables/variables.index")
    graph = (whole / "saved_model.pb").read_bytes()
    foreign = copy(folder, "foreign_operation", whole) / "saved_model.pb"
    foreign.write_bytes(graph.replace(b"\6MatMul", b"\6MyOwn1"))
    for name, of in (("cut_keras", "zipped"), ("cut_h5", "older")):
        (source,) = (folder / of / "1").iterdir()
        content = source.read_bytes()
        Path(place(folder, name, source.name)).write_bytes(content[: len(content) // 2])


def half(folder: Path, name: str, whole: Path, file: str) -> None:
    path = copy(folder, name, whole) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def copy(folder: Path, name: str, whole: Path) -> Path:
    target = Path(place(folder, name, whole.name))
    for path in whole.rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(whole)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return target


def place(folder: Path, model: str, file: str) -> str:
    path = folder / model / "1" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def objects(*values: bytes) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = values
    return made


INPUTS: dict[str, Arrays] = {
    "exported": {"x": ROWS},
    "zipped": {"x": ROWS},
    "older": {"x": ROWS},
    "unbuilt": {},
    "branching": {"a": ROWS, "b": np.arange(12, dtype=np.int32).reshape(3, 2, 2)},
    "texts": {
        "text": objects(b"ab\xff", b"", b"c\0"),
        "w": np.array([[1, 2], [3, 4], [5, 0.5]], tf.bfloat16.as_numpy_dtype),
    },
    "texts/one": {"text": objects(b"a\0").reshape(())},
}
CONFIGS = {
    "texts/one": 'parameters { key: "TF_SIGNATURE_DEF" value { string_value: "one" } }',
    "exported/threads": 'parameters { key: "TF_NUM_INTRA_THREADS" value { string_value: "-1" } }',
    "exported/libraries": 'model_operations { op_library_filename: "1/ops.so" }',
}


def told(folder: Path, name: str) -> dict[str, Any]:
    """What becomes of a model: its config and outputs, or why there are none."""
    model_dir = folder / name.partition("/")[0]
    given = text_format.Parse(HERE + CONFIGS.get(name, ""), ModelConfig(name="m"))
    try:
        found = find_backend(given, ModelFiles(model_dir, 1))
        config = found.backend.complete(given, ModelFiles(model_dir, 1))
        placement = Placement("m_0", "KIND_CPU", 0, 1)
        instance = found.backend.open(config, ModelFiles(model_dir, 1), placement)
    except ServingError as error:
        return {"error": error.message}
    arrays = dict(INPUTS.get(name, {})) or {config.input[0].name: ROWS}
    batching = config.max_batch_size > 0
    tensors = {key: Tensor.of(key, value) for key, value in arrays.items()}
    request = CheckedRequest("m", 1, "", tensors, (), batch_size=3 if batching else 1)
    batch = Batch([request], batching=batching)
    instance.execute(batch)
    return {
        "config": to_json_dict(config),
        "outputs": {tensor.name: listed(tensor.numpy()) for tensor in batch.outputs[0]},
    }


def listed(values: np.ndarray) -> Any:
    """As JSON has it: bytes as Latin-1."""
    turn: Callable[[Any], Any] = lambda v: v.decode("latin-1") if isinstance(v, bytes) else float(v)  # noqa: E731
    flat = [turn(value) for value in values.ravel()]
    return {"shape": list(values.shape), "values": flat}


def main() -> None:
    folder = Path(sys.argv[1])
    expected = make(folder)
    spoil(folder)
    (folder / "exported" / "1" / "ops.so").write_text("no library")
    names = sorted({path.name for path in folder.iterdir() if path.is_dir()} | CONFIGS.keys())
    lite = {"lite", "quantised"}
    results = {name: told(folder, name) for name in names if name not in lite}
    for name, outputs in expected.items():
        results[name]["expected"] = {key: listed(value) for key, value in outputs.items()}
    expected_lite = {key: listed(value) for key, value in expected["exported"].items()}
    results["lite"] = {"inputs": listed(ROWS), "expected": expected_lite}
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()

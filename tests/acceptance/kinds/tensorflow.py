"""What TensorFlow, Keras and TensorFlow Lite's converter write."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from acceptance.kind import MODEL, Array, Kind, Prediction, model_folder

if TYPE_CHECKING:
    import keras

ROWS = np.random.default_rng(8).normal(size=(4, 4)).astype(np.float32)

FROZEN = """
platform: "tensorflow_graphdef"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


def _net() -> "keras.Model":
    import keras

    keras.utils.set_random_seed(9)
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((4,), name="x"), layers.Dense(8, "tanh"), layers.Dense(3)]
    )


def _predicted(net: "keras.Model") -> Prediction:
    return Prediction({"x": ROWS}, {"output_0": net.predict(ROWS, verbose=0)})


def _exported(place: Path, *, name: str, version: str = "1") -> Prediction:
    net = _net()
    net.export(str(model_folder(place, version) / name), verbose=False)
    return _predicted(net)


def _texts(place: Path) -> Prediction:
    """Two inputs, one of them of texts; a signature that is not called as usual."""
    import tensorflow as tf

    class Marked(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None, 1], tf.string, name="text"),
                tf.TensorSpec([None, 2], tf.float32, name="weights"),
            ]
        )
        def mark(self, text: Any, weights: Any) -> dict[str, Any]:
            joined = tf.strings.join([text, tf.strings.as_string(tf.strings.length(text))], "/")
            return {"marked": joined, "total": tf.reduce_sum(weights, axis=1, keepdims=True)}

    module = Marked()
    folder = model_folder(place) / "model.savedmodel"
    tf.saved_model.save(module, str(folder), {"mark": module.mark})
    texts = np.array([["one"], [""], ["zwölf"]])
    weights = ROWS[:3, :2].copy()
    outputs = module.mark(tf.constant(texts), tf.constant(weights))
    marked = np.array([[text.decode()] for (text,) in outputs["marked"].numpy()])
    return Prediction(
        {"text": texts, "weights": weights}, {"marked": marked, "total": outputs["total"].numpy()}
    )


def _saved(place: Path, *, name: str) -> Prediction:
    net = _net()
    net.save(model_folder(place) / name)
    return _predicted(net)


def _frozen(place: Path) -> Prediction:
    """A graph of TensorFlow 1, which names nothing that goes in or out."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
        tf.identity(tf.nn.softmax(x * 2), "y")
        with tf.compat.v1.Session() as session:
            y = session.run("y:0", {"x:0": ROWS})
    folder = model_folder(place)
    (folder / "model.graphdef").write_bytes(graph.as_graph_def().SerializeToString())
    (folder.parent / "config.pbtxt").write_text(FROZEN)
    return Prediction({"x": ROWS}, {"y": y})


def _lone(place: Path) -> Prediction:
    net = _net()
    net.save(place / f"{MODEL}.keras")
    return _predicted(net)


def _converted(place: Path, *, quantise: bool) -> Prediction:
    """What LiteRT says: in int8, the numbers of the file."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_keras_model(_net())
    rows: Array = ROWS
    if quantise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in ROWS)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        rows = np.arange(-8, 8, dtype=np.int8).reshape(4, 4) * 8
    path = model_folder(place) / "model.tflite"
    path.write_bytes(converter.convert())
    run: Callable[..., dict[str, Any]] = Interpreter(str(path)).get_signature_runner()
    return Prediction({"x": rows}, run(x=rows))


# Slow: TensorFlow is imported once to make the model, and once or twice to serve it.
_saved_model = partial(
    Kind, backend="tensorflow", library="TensorFlow", extra="tensorflow", apart=True, slow=True
)
_keras = partial(
    Kind, backend="keras", library="Keras on TensorFlow", extra="tensorflow", apart=True, slow=True
)
_lite = partial(Kind, backend="tflite", library="LiteRT", extra="tflite", apart=True, slow=True)

KINDS = (
    _saved_model(
        title="TensorFlow SavedModel",
        files="`model.savedmodel/`, or the only folder with `saved_model.pb` in it",
        make=_texts,
        slow=True,
    ),
    _saved_model(
        title="Keras 3 export (`model.export`)",
        files="`saved_model.pb`, `variables/`, `assets/`",
        make=partial(_exported, name="."),
    ),
    _saved_model(
        title="Keras 3 export under another name",
        files="one folder with these in it",
        make=partial(_exported, name="my_export"),
        slow=True,
    ),
    _saved_model(
        title="Keras 3 export without a version",
        files="these, in the model's folder itself",
        make=partial(_exported, name=".", version=""),
        slow=True,
    ),
    _saved_model(
        title="TensorFlow 1, frozen graph",
        files="`model.graphdef`",
        config="inputs and outputs",
        make=_frozen,
        slow=True,
    ),
    _keras(
        title="Keras",
        files="`model.keras`, or the only `.keras` file; no code of the author's",
        make=partial(_saved, name=f"{MODEL}.keras"),
    ),
    _keras(title="Keras, a lone file", files="`NAME.keras` in the repository itself", make=_lone),
    _keras(
        title="Keras, HDF5",
        files="`model.h5`, or the only `.h5` or `.hdf5` file; the whole model, not weights",
        make=partial(_saved, name="model.h5"),
    ),
    _lite(
        title="TensorFlow Lite",
        files="`model.tflite`, or the only `.tflite` file",
        make=partial(_converted, quantise=False),
    ),
    _lite(
        title="TensorFlow Lite, quantised",
        files="the same; int8 and uint8 tensors are sent as they are",
        make=partial(_converted, quantise=True),
    ),
)

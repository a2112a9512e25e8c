"""One side of a framework's comparison, in a fresh process: makes its model, or opens it and
computes once, by the library alone or by our backend.

`python -m bench.framework_side make|bare|ours FRAMEWORK FOLDER` prints times and memory.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROWS = np.ones((4, 4), np.float32)


def make(word: str, folder: Path) -> None:
    """The smallest model that has weights: y = x w."""
    folder.mkdir(parents=True)
    {
        "keras": _make_keras,
        "onnxruntime": _make_onnx,
        "openvino": _make_openvino,
        "pytorch": _make_torch,
        "tensorflow": _make_tensorflow,
        "tflite": _make_tflite,
    }[word](folder)


def _net() -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,), name="x"), keras.layers.Dense(3)])


def _make_keras(folder: Path) -> None:
    _net().save(folder / "model.keras")


def _make_tensorflow(folder: Path) -> None:
    _net().export(str(folder / "model.savedmodel"), verbose=False)


def _make_tflite(folder: Path) -> None:
    import tensorflow as tf

    converted = tf.lite.TFLiteConverter.from_keras_model(_net()).convert()
    (folder / "model.tflite").write_bytes(converted)


def _make_onnx(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def _make_openvino(folder: Path) -> None:
    import openvino

    _make_onnx(folder)
    model = openvino.Core().read_model(folder / "model.onnx")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()


def _make_torch(folder: Path) -> None:
    import torch

    shapes = ({0: torch.export.Dim.DYNAMIC},)
    rows = torch.ones(4, 4)
    program = torch.export.export(torch.nn.Linear(4, 3), (rows,), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")


def bare(word: str, folder: Path) -> Callable[[], object]:
    """Imports the library and opens the model, as its users do; what it returns computes."""
    if word == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        return lambda: session.run(None, {"x": ROWS})
    if word == "pytorch":
        import torch

        module = torch.export.load(folder / "model.pt2").module()
        return lambda: module(torch.from_numpy(ROWS)).detach().numpy()
    if word == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(folder / "model.tflite")).get_signature_runner()
        return lambda: runner(x=ROWS)
    if word == "openvino":
        import openvino

        compiled = openvino.compile_model(folder / "model.xml", "CPU")
        return lambda: compiled(ROWS)
    if word == "tensorflow":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(folder / "model.savedmodel"))
        return lambda: loaded.signatures["serving_default"](x=tf.constant(ROWS))
    import keras

    net = keras.saving.load_model(folder / "model.keras", compile=False)
    return lambda: net.predict(ROWS, verbose=0)


def ours(word: str, folder: Path) -> Callable[[], object]:
    """Opens the model as the server does; what it returns computes."""
    from trivet.backends.api import Batch, CheckedRequest, ModelFiles, Placement, Tensor
    from trivet.backends.process import Isolation, isolation_of, open_isolated
    from trivet.backends.registry import find_backend
    from trivet.protos.model_config_pb2 import ModelConfig

    files = ModelFiles(folder.parent, 1)
    found = find_backend(ModelConfig(name=word), files)
    config = found.backend.complete(ModelConfig(name=word), files)
    placement = Placement(f"{word}_0", "KIND_CPU", 0, max(1, psutil.cpu_count() or 1))
    if isolation_of(config, found.about) is Isolation.PROCESS:
        instance = open_isolated(word, config, files, placement)
    else:
        instance = found.backend.open(config, files, placement)
    tensors = {given.name: Tensor.of(given.name, ROWS) for given in config.input}

    def compute() -> object:
        batch = Batch([CheckedRequest(word, 1, "", tensors, (), batch_size=4)], batching=True)
        instance.execute(batch)
        assert batch.outputs[0], "no output"
        return instance

    return compute


def measure(side: str, word: str, folder: Path) -> dict[str, float]:
    """Milliseconds to the first answer, those of the processor, and the memory then taken."""
    if side == "ours":
        import trivet.backends.process
        import trivet.backends.registry  # noqa: F401 - the server has them
    before, start, spent = _resident(), time.monotonic(), _processor_seconds()
    kept = (bare if side == "bare" else ours)(word, folder)
    kept()
    took, used = time.monotonic() - start, _processor_seconds() - spent
    own = _resident() - (before if side == "ours" else 0)
    children = psutil.Process().children(recursive=True)
    size = sum((child.memory_info().rss for child in children), own)
    return {"milliseconds": took * 1e3, "processor": used * 1e3, "megabytes": size / 1e6}


def _processor_seconds() -> float:
    """Of this process and of all that it has started, ended or not."""
    own: float = sum(os.times()[:4])
    live = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
    return own + float(sum(each.user + each.system for each in live))


def _resident() -> int:
    resident: int = psutil.Process().memory_info().rss
    return resident


def main() -> None:
    """See the module's docstring."""
    side, word, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3]) / sys.argv[2] / "1"
    if side == "make":
        make(word, folder)
    else:
        print(json.dumps(measure(side, word, folder)))


if __name__ == "__main__":
    main()

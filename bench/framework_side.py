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

import numpy as np
import psutil

from bench.framework_models import FILES, ROWS, TEXT, make


def bare(word: str, folder: Path) -> Callable[[], object]:
    """Imports the library and opens the model, as its users do; what it returns computes."""
    opens: dict[str, Callable[[Path], Callable[[], object]]] = {
        "catboost": _catboost,
        "encoder": _transformers,
        "keras": _keras,
        "lightgbm": _lightgbm,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "pytorch": _torch,
        "sklearn": _sklearn,
        "tensorflow": _tensorflow,
        "tflite": _litert,
        "xgboost": _xgboost,
    }
    return opens[word](folder)


def _onnxruntime(folder: Path) -> Callable[[], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return lambda: session.run(None, {"x": ROWS})


def _torch(folder: Path) -> Callable[[], object]:
    import torch

    module = torch.export.load(folder / "model.pt2").module()
    return lambda: module(torch.from_numpy(ROWS)).detach().numpy()


def _litert(folder: Path) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(folder / "model.tflite")).get_signature_runner()
    return lambda: runner(x=ROWS)


def _openvino(folder: Path) -> Callable[[], object]:
    import openvino

    compiled = openvino.compile_model(folder / "model.xml", "CPU")
    return lambda: compiled(ROWS)


def _tensorflow(folder: Path) -> Callable[[], object]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "model.savedmodel"))
    return lambda: loaded.signatures["serving_default"](x=tf.constant(ROWS))


def _keras(folder: Path) -> Callable[[], object]:
    import keras

    net = keras.saving.load_model(folder / "model.keras", compile=False)
    return lambda: net.predict(ROWS, verbose=0)


def _sklearn(folder: Path) -> Callable[[], object]:
    import skops.io

    model = skops.io.load(folder / "model.skops")
    return lambda: model.predict(ROWS)


def _xgboost(folder: Path) -> Callable[[], object]:
    import xgboost

    booster = xgboost.Booster(model_file=folder / FILES["xgboost"])
    return lambda: booster.inplace_predict(ROWS)


def _lightgbm(folder: Path) -> Callable[[], object]:
    import lightgbm

    booster = lightgbm.Booster(model_file=folder / FILES["lightgbm"])
    return lambda: booster.predict(ROWS)


def _catboost(folder: Path) -> Callable[[], object]:
    import catboost

    model = catboost.CatBoost().load_model(str(folder / FILES["catboost"]))
    return lambda: model.predict(ROWS)


def _transformers(folder: Path) -> Callable[[], object]:
    import transformers

    reader = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    return lambda: model(**reader(TEXT, return_tensors="pt")).last_hidden_state.detach().numpy()


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
        instance = open_isolated(found.about.word, config, files, placement)
    else:
        instance = found.backend.open(config, files, placement)
    tensors = {each.name: Tensor.of(each.name, ROWS) for each in config.input}
    if word == "encoder":
        tensors = {"text": Tensor.of("text", np.array([[TEXT.encode()]], dtype=object))}
    size = len(next(iter(tensors.values())).numpy())

    def compute() -> object:
        batch = Batch([CheckedRequest(word, 1, "", tensors, (), batch_size=size)], batching=True)
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

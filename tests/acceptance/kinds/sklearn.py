"""scikit-learn's models by skops, by pickle and as ONNX, and those of others that are saved so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import MODEL, Kind, Prediction, model_folder
from acceptance.kinds.trees import ASKED, CLASSES, ROWS, catboost, lightgbm

ALLOWED = (f"--allow-pickle={MODEL}",)
WORDS = np.array(["ant", "ibex", "yak"])
MODULE = """
import torch

class Twice(torch.nn.Module):
    def forward(self, x):
        return x * 2
"""
TENSORS = """
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }]
"""


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    forest = RandomForestClassifier(8, max_depth=4, random_state=0)
    return make_pipeline(StandardScaler(), forest).fit(ROWS.astype(np.float64), WORDS[CLASSES])


def _predicted(model: Any) -> Prediction:
    rows = ASKED.astype(np.float64)
    outputs = {
        "predict": model.predict(rows).astype(str).reshape(-1, 1),
        "predict_proba": model.predict_proba(rows),
    }
    return Prediction({"input": rows}, outputs)


def _skops(place: Path) -> Prediction:
    import skops.io

    model = _forest()
    skops.io.dump(model, model_folder(place) / "model.skops")
    return _predicted(model)


def _pickled(place: Path, *, name: str) -> Prediction:
    import joblib

    model = _forest()
    joblib.dump(model, model_folder(place) / name)
    return _predicted(model)


def _pickled_module(place: Path) -> Prediction:
    """Whole, with its class in a module beside it."""
    import sys

    import torch

    folder = model_folder(place)
    (folder / "twice.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import twice  # type: ignore[import-not-found]  # just written

    torch.save(twice.Twice(), folder / "model.pt")
    (folder.parent / "config.pbtxt").write_text('backend: "pytorch" max_batch_size: 8' + TENSORS)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    return Prediction({"x": x}, {"y": x * 2})


def _onnx(place: Path, *, write: Callable[[Path], Any], name: str) -> Prediction:
    """With maps of probabilities, as all converters write them unless told not to."""
    import onnxruntime

    path = model_folder(place) / "model.onnx"
    model = write(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    maps = session.run([name], {given: ASKED})[0]
    rows = [[each[label] for label in model.classes_.tolist()] for each in maps]
    return Prediction({given: ASKED}, {name: np.array(rows, np.float32)})


def _from_sklearn(path: Path) -> Any:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(ROWS, WORDS[CLASSES])
    path.write_bytes(to_onnx(model, ROWS[:1]).SerializeToString())
    return model


def _from_lightgbm(path: Path) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = lightgbm()
    inputs = [("input", FloatTensorType([None, ROWS.shape[1]]))]
    path.write_bytes(convert_lightgbm(model, initial_types=inputs).SerializeToString())
    return model


def _from_catboost(path: Path) -> Any:
    model = catboost()
    model.save_model(str(path), format="onnx")
    return model


KINDS = (
    Kind(
        title="scikit-learn by skops",
        files="`model.skops`, or the only `.skops` file",
        backend="sklearn",
        library="scikit-learn",
        extra="sklearn",
        make=_skops,
        apart=True,
        slow=True,
    ),
    Kind(
        title="scikit-learn, pickled",
        files="`model.pkl`, or the only `.pkl` or `.pickle` file",
        backend="sklearn",
        library="scikit-learn",
        extra="sklearn",
        config="no, but `--allow-pickle NAME`",
        make=partial(_pickled, name="model.pkl"),
        flags=ALLOWED,
        apart=True,
        slow=True,
    ),
    Kind(
        title="scikit-learn by joblib",
        files="`model.joblib`, or the only `.joblib` file",
        backend="sklearn",
        library="scikit-learn",
        extra="sklearn",
        config="no, but `--allow-pickle NAME`",
        make=partial(_pickled, name="churn.joblib"),
        flags=ALLOWED,
        apart=True,
        slow=True,
    ),
    Kind(
        title="A pickled `torch.nn.Module`",
        files="`model.pt`, its class in a module beside it",
        backend="pytorch",
        library="PyTorch",
        extra="torch",
        config="inputs and outputs, and `--allow-pickle NAME`",
        make=_pickled_module,
        flags=ALLOWED,
        apart=True,
        slow=True,
    ),
    Kind(
        title="ONNX of scikit-learn (skl2onnx)",
        files="`model.onnx`, also with ZipMap: probabilities are one tensor",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=partial(_onnx, write=_from_sklearn, name="output_probability"),
        apart=True,
        slow=True,
    ),
    Kind(
        title="ONNX of LightGBM (onnxmltools)",
        files="`model.onnx`, also with ZipMap",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=partial(_onnx, write=_from_lightgbm, name="probabilities"),
        apart=True,
        slow=True,
    ),
    Kind(
        title="ONNX of CatBoost",
        files="`model.onnx`, its own export",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=partial(_onnx, write=_from_catboost, name="probabilities"),
    ),
)

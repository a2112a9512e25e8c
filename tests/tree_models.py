"""Small models of decision trees, made by the real libraries, and the folder of one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import xgboost
from google.protobuf import text_format
from onnx_models import run_one

from trivet.backends.api import Instance, ModelFiles, Placement
from trivet.backends.registry import open_backend
from trivet.protos.model_config_pb2 import ModelConfig

NUM_FEATURES = 5
RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(200, NUM_FEATURES)).astype(np.float32)
ROWS[::11, 2] = np.nan
VALUES = (ROWS[:, 0] * 2 + ROWS[:, 1]).astype(np.float32)
TWO = (VALUES > 0).astype(int)
THREE = np.digitize(VALUES, [-0.7, 0.7])
WORDS = np.array(["ibex", "yak", "ant"])[THREE]


@cache
def xgboost_model(kind: str) -> Any:
    """kind: two, three or value."""
    shared: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}
    if kind == "value":
        return xgboost.XGBRegressor(**shared).fit(ROWS, VALUES)
    return xgboost.XGBClassifier(**shared).fit(ROWS, TWO if kind == "two" else THREE)


@cache
def lightgbm_model(kind: str) -> Any:
    shared: dict[str, Any] = {"n_estimators": 8, "num_leaves": 7, "n_jobs": 1, "verbose": -1}
    if kind == "value":
        return lightgbm.LGBMRegressor(**shared).fit(ROWS, VALUES)
    return lightgbm.LGBMClassifier(**shared).fit(ROWS, TWO if kind == "two" else THREE)


@cache
def catboost_model(kind: str) -> Any:
    shared: dict[str, Any] = {
        "iterations": 8,
        "depth": 3,
        "thread_count": 1,
        "verbose": 0,
        "allow_writing_files": False,
    }
    if kind == "value":
        return catboost.CatBoostRegressor(**shared).fit(ROWS, VALUES)
    return catboost.CatBoostClassifier(**shared).fit(ROWS, TWO if kind == "two" else WORDS)


def prediction(model: Any) -> np.ndarray:
    """What the library's own class says of ROWS: probabilities, or values in one column."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(ROWS), dtype=np.float32)
    return np.asarray(model.predict(ROWS), dtype=np.float32).reshape(len(ROWS), -1)


SAVERS: dict[str, tuple[Callable[[str], Any], Callable[[Any, Path], None]]] = {
    "model.json": (xgboost_model, lambda model, path: model.save_model(path)),
    "model.ubj": (xgboost_model, lambda model, path: model.save_model(path)),
    "model.txt": (lightgbm_model, lambda model, path: model.booster_.save_model(path)),
    "model.cbm": (catboost_model, lambda model, path: model.save_model(str(path))),
}
"""By the usual name of the file: who makes the model, and who saves it."""


@dataclass
class Home:
    """The folder of model 'm'."""

    model_dir: Path
    word: str = "fil"

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model_dir, 1)

    def path(self, name: str) -> Path:
        path = self.files.version_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, kind: str, under: str = "") -> Any:
        """Saves the model as `name` (or `under` another name); returns the library's own."""
        make, save = SAVERS[name]
        model = make(kind)
        save(model, self.path(name))
        if under:
            self.path(name).rename(self.path(under))
        return model

    def complete(self, text: str = "") -> ModelConfig:
        config = text_format.Parse(text, ModelConfig(name="m"))
        config.backend = self.word
        return open_backend(self.word).complete(config, self.files)

    def open(self, text: str = "") -> Instance:
        placement = Placement("m_0_0", "KIND_CPU", 0, 1)
        return open_backend(self.word).open(self.complete(text), self.files, placement)

    def answer(self, text: str = "", rows: np.ndarray = ROWS) -> np.ndarray:
        """`output__0` for the rows."""
        instance = self.open(text)
        try:
            return run_one(instance, input__0=rows)["output__0"]
        finally:
            instance.close()


def parameters(**values: str) -> str:
    """Of a config."""
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in values.items()
    )


TENSORS = """
backend: "fil" max_batch_size: 64
input {{ name: "input__0" data_type: TYPE_FP32 dims: [ 5 ] }}
output {{ name: "output__0" data_type: TYPE_FP32 dims: [ {columns} ] }}
dynamic_batching {{}}
"""
"""Triton's, for its FIL backend."""

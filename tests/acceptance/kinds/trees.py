"""Decision trees, as XGBoost, LightGBM and CatBoost write them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import MODEL, Array, Kind, Prediction, model_folder

RANDOM = np.random.default_rng(11)
ROWS: Array = RANDOM.normal(size=(120, 5)).astype(np.float32)
CLASSES: Array = np.digitize(ROWS[:, 0] + ROWS[:, 1], [-0.5, 0.5])
ASKED: Array = ROWS[:4]
FIL = """
backend: "fil" max_batch_size: 32768 dynamic_batching {{}}
input [{{ name: "input__0" data_type: TYPE_FP32 dims: [ 5 ] }}]
output [{{ name: "output__0" data_type: TYPE_FP32 dims: [ 1 ] }}]
instance_group [{{ kind: KIND_AUTO }}]
parameters [
  {{ key: "model_type" value: {{ string_value: "{model_type}" }} }},
  {{ key: "output_class" value: {{ string_value: "true" }} }},
  {{ key: "storage_type" value: {{ string_value: "AUTO" }} }},
  {{ key: "algo" value: {{ string_value: "ALGO_AUTO" }} }}
]
"""


def xgboost() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=6, max_depth=3, n_jobs=1).fit(ROWS, CLASSES)


def lightgbm() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=6, num_leaves=6, n_jobs=1, verbose=-1).fit(ROWS, CLASSES)


def catboost() -> Any:
    from catboost import CatBoostClassifier

    settings: dict[str, Any] = {"depth": 3, "verbose": 0, "allow_writing_files": False}
    model = CatBoostClassifier(iterations=6, thread_count=1, **settings)
    return model.fit(ROWS, np.array(["ant", "ibex", "yak"])[CLASSES])


def _save_xgboost(model: Any, path: Path) -> None:
    model.save_model(path)


def _save_lightgbm(model: Any, path: Path) -> None:
    model.booster_.save_model(path)


def _save_catboost(model: Any, path: Path) -> None:
    model.save_model(str(path))


Save = Callable[[Any, Path], None]


def _bare(place: Path, *, train: Callable[[], Any], save: Save, name: str) -> Prediction:
    model = train()
    save(model, model_folder(place) / name)
    proba = np.asarray(model.predict_proba(ASKED), np.float32)
    return Prediction({"input__0": ASKED}, {"output__0": proba})


def _lone(place: Path) -> Prediction:
    model = xgboost()
    _save_xgboost(model, place / f"{MODEL}.ubj")
    return Prediction({"input__0": ASKED}, {"output__0": model.predict_proba(ASKED)})


def _of_mlserver(
    place: Path, *, train: Callable[[], Any], content: Callable[[Any], bytes]
) -> Prediction:
    """Its folder: no number, the file's name says nothing of the library, and settings beside."""
    model, folder = train(), model_folder(place, "")
    (folder / "model.bst").write_bytes(content(model))
    (folder / "model-settings.json").write_text(
        json.dumps({"name": MODEL, "parameters": {"uri": "./model.bst"}})
    )
    proba = np.asarray(model.predict_proba(ASKED), np.float32)
    return Prediction({"input__0": ASKED}, {"output__0": proba})


def _xgboost_content(model: Any) -> bytes:
    return bytes(model.get_booster().save_raw("ubj"))


def _lightgbm_content(model: Any) -> bytes:
    text: str = model.booster_.model_to_string()
    return text.encode()


def _of_triton(
    place: Path, *, train: Callable[[], Any], save: Save, name: str, model_type: str
) -> Prediction:
    model = train()
    folder = model_folder(place)
    save(model, folder / name)
    (folder.parent / "config.pbtxt").write_text(FIL.format(model_type=model_type))
    classes = np.asarray(model.predict(ASKED), np.float32).reshape(-1, 1)
    return Prediction({"input__0": ASKED}, {"output__0": classes})


XGBOOST: dict[str, Any] = {"train": xgboost, "save": _save_xgboost}
LIGHTGBM: dict[str, Any] = {"train": lightgbm, "save": _save_lightgbm}
CATBOOST: dict[str, Any] = {"train": catboost, "save": _save_catboost}

KINDS = (
    Kind(
        title="XGBoost, JSON",
        files="`model.json`, or the only one that XGBoost wrote",
        backend="fil",
        library="XGBoost",
        extra="xgboost",
        make=partial(_bare, **XGBOOST, name="model.json"),
        slow=True,
    ),
    Kind(
        title="XGBoost, UBJSON",
        files="`model.ubj`, or the only `.ubj` file",
        backend="fil",
        library="XGBoost",
        extra="xgboost",
        make=partial(_bare, **XGBOOST, name="churn.ubj"),
    ),
    Kind(
        title="XGBoost without a folder",
        files="`NAME.ubj` beside the folders",
        backend="fil",
        library="XGBoost",
        extra="xgboost",
        make=_lone,
    ),
    Kind(
        title="LightGBM",
        files="`model.txt`, or the only one that LightGBM wrote",
        backend="fil",
        library="LightGBM",
        extra="lightgbm",
        make=partial(_bare, **LIGHTGBM, name="model.txt"),
    ),
    Kind(
        title="CatBoost",
        files="`model.cbm`, or the only `.cbm` file",
        backend="fil",
        library="CatBoost",
        extra="catboost",
        make=partial(_bare, **CATBOOST, name="model.cbm"),
        slow=True,
    ),
    Kind(
        title="XGBoost, as KServe and MLServer have it",
        files="`model.bst`, or the only `.bst` file; `model-settings.json` is not read",
        backend="fil",
        library="XGBoost",
        extra="xgboost",
        make=partial(_of_mlserver, train=xgboost, content=_xgboost_content),
        slow=True,
    ),
    Kind(
        title="LightGBM, as KServe and MLServer have it",
        files="the same: the content tells whose it is",
        backend="fil",
        library="LightGBM",
        extra="lightgbm",
        make=partial(_of_mlserver, train=lightgbm, content=_lightgbm_content),
        slow=True,
    ),
    Kind(
        title="XGBoost for Triton's FIL",
        files="`xgboost.json`, `xgboost.ubj` and Triton's `config.pbtxt`",
        backend="fil",
        library="XGBoost",
        extra="xgboost",
        config="Triton's, unchanged",
        make=partial(_of_triton, **XGBOOST, name="xgboost.json", model_type="xgboost_json"),
    ),
    Kind(
        title="LightGBM for Triton's FIL",
        files="`model.txt` and Triton's `config.pbtxt`",
        backend="fil",
        library="LightGBM",
        extra="lightgbm",
        config="Triton's, unchanged",
        make=partial(_of_triton, **LIGHTGBM, name="model.txt", model_type="lightgbm"),
        slow=True,
    ),
)

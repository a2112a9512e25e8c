"""MLflow's model folders, as MLflow writes them."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from acceptance.kind import Array, Kind, Prediction, model_folder
from acceptance.kinds.sklearn import ALLOWED
from acceptance.kinds.trees import CLASSES, ROWS

NAMES = "abcde"
TABLE: Array = ROWS.astype(np.float64)
COLUMNS = {name: TABLE[:4, place : place + 1] for place, name in enumerate(NAMES)}


def _save(place: Path, flavor: str, table: Any, answers: Any, *own: Any, **more: Any) -> None:
    """Without the search for requirements, which takes half a minute."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from importlib import import_module

    from mlflow.models import infer_signature

    folder = model_folder(place)
    folder.rmdir()
    import_module(f"mlflow.{flavor}").save_model(
        *own,
        path=str(folder),
        signature=infer_signature(table, answers),
        pip_requirements=[],
        **more,
    )


def _xgboost(place: Path) -> Prediction:
    import pandas as pd
    from xgboost import XGBClassifier

    table = pd.DataFrame(TABLE, columns=list(NAMES))
    model = XGBClassifier(n_estimators=6, max_depth=3, n_jobs=1).fit(table, CLASSES)
    _save(place, "xgboost", table, model.predict(table), model)
    return Prediction(COLUMNS, {"output__0": model.predict_proba(table[:4])})


def _sklearn(place: Path, form: str) -> Any:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    table = pd.DataFrame(TABLE, columns=list(NAMES))
    model = LogisticRegression().fit(table, CLASSES)
    _save(place, "sklearn", table, model.predict(table), model, serialization_format=form)
    return model.predict(table[:4]), model.predict_proba(table[:4])


def _by_skops(place: Path) -> Prediction:
    _, proba = _sklearn(place, "skops")
    return Prediction(COLUMNS, {"predict_proba": proba})


def _pickled(place: Path) -> Prediction:
    labels, _ = _sklearn(place, "cloudpickle")
    return Prediction(COLUMNS, {"predict": labels.reshape(-1, 1)})


def _function(place: Path) -> Prediction:
    import cloudpickle
    import pandas as pd
    from mlflow import pyfunc

    def predict(self: Any, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input.sum(axis=1)

    base: Any = pyfunc.PythonModel
    model = type("Total", (base,), {"predict": predict})()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    table = pd.DataFrame(TABLE, columns=list(NAMES))
    _save(place, "pyfunc", table, table.sum(axis=1), python_model=model)
    return Prediction(COLUMNS, {"predict": table[:4].sum(axis=1).to_numpy().reshape(-1, 1)})


def _keras(place: Path) -> Prediction:
    import keras

    model = keras.Sequential([keras.Input((5,), name="x"), keras.layers.Dense(2, name="y")])
    answers = model.predict(ROWS[:4], verbose=0)
    _save(place, "tensorflow", ROWS[:4], answers, model)
    return Prediction({"x": ROWS[:4]}, {"output_0": answers})


KINDS = (
    Kind(
        title="MLflow: XGBoost, LightGBM, CatBoost, ONNX",
        files="MLflow's folder: `MLmodel` and what it names",
        backend="mlflow",
        library="that of the flavour",
        extra="mlflow",
        make=_xgboost,
        apart=True,
    ),
    Kind(
        title="MLflow: Keras",
        files="MLflow's folder",
        backend="mlflow",
        library="Keras",
        extra="mlflow",
        make=_keras,
        apart=True,
        slow=True,
    ),
    Kind(
        title="MLflow: scikit-learn by skops",
        files="MLflow's folder",
        backend="mlflow",
        library="scikit-learn",
        extra="mlflow",
        make=_by_skops,
        apart=True,
        slow=True,
    ),
    Kind(
        title="MLflow: scikit-learn, pickled",
        files="MLflow's folder",
        backend="mlflow",
        library="MLflow",
        extra="mlflow",
        config="no, but `--allow-pickle NAME`",
        make=_pickled,
        flags=ALLOWED,
        apart=True,
        slow=True,
    ),
    Kind(
        title="MLflow: `python_function`",
        files="MLflow's folder",
        backend="mlflow",
        library="MLflow",
        extra="mlflow",
        config="no, but `--allow-pickle NAME`",
        make=_function,
        flags=ALLOWED,
        apart=True,
        slow=True,
    ),
)

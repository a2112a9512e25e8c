"""XGBoost's models: JSON and UBJSON."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.fil.forest import Facts, softmax
from trivet.backends.fil.ubjson import check_whole

_BINARY_OBJECTIVES = ("binary:logistic", "binary:hinge")
_PLACE_IN_SOURCES = re.compile(r"^\[[\d:]+\] \S+: ")


class XGBoostForest:
    """A booster. `inplace_predict` makes no DMatrix, which would cost several times the trees."""

    def __init__(self, booster: xgboost.Booster, *, all_iterations: bool) -> None:
        """`all_iterations`: also those after the best one of early stopping, as a Booster predicts;
        otherwise as the class predicts that has saved it."""
        learner = json.loads(booster.save_config())["learner"]
        self._booster = booster
        self._objective = learner["objective"]["name"]
        self._is_linear = learner["gradient_booster"]["name"] == "gblinear"
        attributes = booster.attributes()
        best = attributes.get("best_iteration") if "scikit_learn" in attributes else None
        self._range = (0, 0 if all_iterations or best is None else int(best) + 1)
        self._num_threads = 0
        self.facts = _facts(booster, learner, self._objective)

    def scores(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        self._use(num_threads)
        is_index = self._objective == "multi:softmax"
        if self._is_linear:
            values = self._booster.predict(xgboost.DMatrix(rows), output_margin=is_index)
        else:
            kind = "margin" if is_index else "value"
            values = self._booster.inplace_predict(
                rows, iteration_range=self._range, predict_type=kind
            )
        found = np.asarray(values, dtype=np.float32).reshape(len(rows), -1)
        return softmax(found) if is_index else found

    def contributions(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        self._use(num_threads)
        data = xgboost.DMatrix(rows, nthread=num_threads)
        values: np.ndarray = self._booster.predict(
            data, pred_contribs=True, iteration_range=self._range
        )
        return values

    def _use(self, num_threads: int) -> None:
        if num_threads != self._num_threads:
            self._booster.set_param({"nthread": num_threads})
            self._num_threads = num_threads


def open_xgboost(path: Path, *, all_iterations: bool) -> XGBoostForest:
    """Raises LoadFailed."""
    content = path.read_bytes()
    if not content.startswith(b"{"):
        raise LoadFailed(
            f"'{path.name}' is no XGBoost model in JSON or UBJSON; it is {describe_content(path)}. "
            "XGBoost's old binary format is read by versions before 3.1 only: load it with one of "
            'those and save it anew, booster.save_model("model.ubj")'
        )
    booster = xgboost.Booster({"nthread": 1})
    try:
        _check_whole(content)
        booster.load_model(bytearray(content))
        return XGBoostForest(booster, all_iterations=all_iterations)
    except (xgboost.core.XGBoostError, KeyError, ValueError) as error:
        raise LoadFailed(
            f"'{path.name}' could not be read by XGBoost {xgboost.__version__} (it is "
            f"{describe_content(path)}, damaged or cut off): {_reason(error)}"
        ) from error


def _check_whole(content: bytes) -> None:
    """Raises ValueError."""
    if content[1:2] in b'"}' or content[1:2].isspace():
        json.loads(content)
    else:
        check_whole(content)


def _facts(booster: xgboost.Booster, learner: Mapping[str, Any], objective: str) -> Facts:
    parameters = learner["learner_model_param"]
    num_classes = int(parameters["num_class"])
    num_scores = max(1, num_classes, int(parameters.get("num_target", "1")))
    if objective in _BINARY_OBJECTIVES and num_scores == 1:
        num_classes = 2
    features = tuple(booster.feature_names or ())
    return Facts("XGBoost", booster.num_features(), num_scores, num_classes, features=features)


def _reason(error: Exception) -> str:
    """The first line of a text that goes on with a trace of XGBoost's own functions."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return _PLACE_IN_SOURCES.sub("", lines[0]) if lines else type(error).__name__

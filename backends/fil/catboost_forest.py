"""CatBoost's models: its own binary format."""

from pathlib import Path

import catboost
import numpy as np

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.fil.forest import Facts

_PROBABILITY_LOSSES = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")
_EXPONENT_LOSSES = ("Poisson", "Tweedie")
"""What CatBoostRegressor gives as exp(raw value)."""


class CatBoostForest:
    """A model, whatever class saved it."""

    def __init__(self, model: catboost.CatBoost) -> None:
        self._model = model
        loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
        classes = tuple(str(each) for each in model.classes_)
        is_classifier = loss in _PROBABILITY_LOSSES and len(classes) > 1
        self._kind = "Probability" if is_classifier else "RawFormulaVal"
        if loss in _EXPONENT_LOSSES:
            self._kind = "Exponent"
        num_features = len(model.feature_names_)
        self._is_binary = is_classifier and len(classes) == 2
        probe = self._predict(np.zeros((1, num_features), dtype=np.float32), 1)
        self.facts = Facts(
            "CatBoost",
            num_features,
            probe.shape[1],
            len(classes) if is_classifier else 0,
            classes if is_classifier else (),
        )

    def scores(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        return self._predict(rows, num_threads)

    def _predict(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        values = self._model.predict(rows, prediction_type=self._kind, thread_count=num_threads)
        found = np.asarray(values, dtype=np.float32).reshape(len(rows), -1)
        return found[:, 1:] if self._is_binary else found

    def contributions(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        values = self._model.get_feature_importance(
            catboost.Pool(rows), type="ShapValues", thread_count=num_threads
        )
        return np.asarray(values, dtype=np.float32)


def open_catboost(path: Path) -> CatBoostForest:
    """Raises LoadFailed."""
    model = catboost.CatBoost()
    try:
        model.load_model(str(path))
    except catboost.CatBoostError as error:
        raise LoadFailed(
            f"'{path.name}' could not be read by CatBoost {catboost.__version__} (it is "
            f"{describe_content(path)}, or was cut off): {str(error).rpartition('.cpp:')[2]}"
        ) from error
    unfit = [*model.get_cat_feature_indices(), *model.get_text_feature_indices()]
    if unfit:
        names = [model.feature_names_[index] for index in unfit]
        raise LoadFailed(
            f"'{path.name}' has the categorical or text features {names}, which one tensor of "
            "numbers cannot carry: serve it from a model.py (backend 'python'), or train on codes"
        )
    return CatBoostForest(model)

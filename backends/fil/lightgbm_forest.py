"""LightGBM's models: its text format."""

import logging
from pathlib import Path

import lightgbm
import numpy as np

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.fil.forest import Facts
from trivet.backends.fil.lightgbm_text import MalformedText, check_text

lightgbm.register_logger(logging.getLogger(__name__))


class LightGBMForest:
    """A booster."""

    def __init__(self, booster: lightgbm.Booster, objective: str) -> None:
        self._booster = booster
        num_scores = booster.num_model_per_iteration()
        is_multiclass = objective.startswith("multiclass")
        num_classes = 2 if objective == "binary" else num_scores if is_multiclass else 0
        self.facts = Facts("LightGBM", booster.num_feature(), num_scores, num_classes)

    def scores(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        values = self._booster.predict(rows, num_threads=num_threads)
        return np.asarray(values, dtype=np.float32).reshape(len(rows), -1)

    def contributions(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        values = self._booster.predict(rows, num_threads=num_threads, pred_contrib=True)
        found = np.asarray(values, dtype=np.float32)
        facts = self.facts
        if facts.num_scores == 1:
            return found
        return found.reshape(len(rows), facts.num_scores, facts.num_features + 1)


def open_lightgbm(path: Path) -> LightGBMForest:
    """Raises LoadFailed."""
    try:
        text = check_text(path.read_text(encoding="utf-8"))
        booster = lightgbm.Booster(model_str=text.trees)
    except (MalformedText, UnicodeDecodeError, lightgbm.basic.LightGBMError) as error:
        raise LoadFailed(
            f"'{path.name}' is no complete LightGBM model in text "
            f"(it is {describe_content(path)}): {error}"
        ) from error
    return LightGBMForest(booster, text.header.get("objective", "").partition(" ")[0])

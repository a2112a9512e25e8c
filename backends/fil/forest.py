"""What trees of every library are to the backend: facts, and scores for rows."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model file says of itself."""

    library: str
    num_features: int
    num_scores: int
    """Columns of `Forest.scores`."""
    num_classes: int = 0
    """0 for what is no classifier; 2 with one score, the probability of the second."""
    classes: tuple[str, ...] = ()
    """Their names in the order of the scores, where the file has names."""

    @property
    def is_binary(self) -> bool:
        return self.num_classes == 2 and self.num_scores == 1


class Forest(Protocol):
    """One loaded model. May be called from one thread at a time."""

    @property
    def facts(self) -> Facts: ...

    def scores(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        """[rows, num_scores] of a classifier's probabilities, or of what else it predicts."""

    def contributions(self, rows: np.ndarray, num_threads: int) -> np.ndarray:
        """Shapley values and, last, the bias: [rows, features + 1], of a classifier with several
        scores [rows, scores, features + 1]."""


def softmax(margins: np.ndarray) -> np.ndarray:
    """Of each row."""
    grown = np.exp(margins - margins.max(axis=1, keepdims=True))
    result: np.ndarray = grown / grown.sum(axis=1, keepdims=True)
    return result

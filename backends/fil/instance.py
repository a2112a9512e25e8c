"""Runs batches through a forest."""

from collections.abc import Sequence

import numpy as np

from trivet.backends.api import Batch, ComputeOnly
from trivet.backends.fil.forest import Forest
from trivet.backends.fil.output import OUTPUT, Output

INPUT = "input__0"
SHAPLEY = "treeshap_output"


class FilInstance(ComputeOnly):
    """One instance, with a forest of its own."""

    def __init__(
        self,
        forest: Forest,
        output: Output,
        columns: Sequence[str],
        num_threads: int,
        *,
        explains: bool,
    ) -> None:
        """`columns`: the inputs, where each has one feature. `explains`: whether the config lists
        Shapley values."""
        self._forest: Forest | None = forest
        self._output = output
        self._columns = columns
        self._num_threads = num_threads
        self._explains = explains

    def execute(self, batch: Batch) -> None:
        assert self._forest is not None, "executed after close"
        rows = self._gather(batch).reshape(-1, self._forest.facts.num_features)
        batch.mark_gathered()
        answers: dict[str, np.ndarray] = {}
        if batch.wants(OUTPUT):
            scores = self._forest.scores(rows, self._num_threads)
            answers[OUTPUT] = self._output.apply(scores)
        if self._explains and batch.wants(SHAPLEY):
            answers[SHAPLEY] = self._forest.contributions(rows, self._num_threads)
        batch.mark_computed()
        for name, values in answers.items():
            batch.scatter(name, values)

    def _gather(self, batch: Batch) -> np.ndarray:
        if not self._columns:
            return _required(batch, INPUT)
        values = [_required(batch, name).reshape(-1) for name in self._columns]
        is_exact = all(each.dtype == np.float32 for each in values)
        return np.stack(values, axis=1, dtype=np.float32 if is_exact else np.float64)

    def is_ready(self) -> bool:
        return self._forest is not None

    def close(self) -> None:
        self._forest = None


def _required(batch: Batch, name: str) -> np.ndarray:
    values = batch.gather(name)
    assert values is not None, "all inputs are required"
    return values

"""Runs batches through a forest."""

import numpy as np

from trivet.backends.api import Batch, ComputeOnly
from trivet.backends.fil.forest import Forest
from trivet.backends.fil.output import OUTPUT, Output

INPUT = "input__0"
SHAPLEY = "treeshap_output"


class FilInstance(ComputeOnly):
    """One instance, with a forest of its own."""

    def __init__(self, forest: Forest, output: Output, num_threads: int, *, explains: bool) -> None:
        """`explains`: whether the config lists Shapley values."""
        self._forest: Forest | None = forest
        self._output = output
        self._num_threads = num_threads
        self._explains = explains

    def execute(self, batch: Batch) -> None:
        assert self._forest is not None, "executed after close"
        rows = batch.gather(INPUT)
        assert rows is not None, "the input is required"
        rows = rows.reshape(-1, self._forest.facts.num_features)
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

    def is_ready(self) -> bool:
        return self._forest is not None

    def close(self) -> None:
        self._forest = None

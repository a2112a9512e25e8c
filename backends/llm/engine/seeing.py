"""Steps of a model that sees: the ids of images' rows become embeddings in their places."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trivet.backends.llm.engine.embeddings import FIRST_ID, Embeddings
from trivet.backends.llm.engine.flight import Runs
from trivet.backends.llm.foreign.plan import Sight
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays


class SeeingRunner:
    """Between the engine and the runner of its model. Owned by the engine's thread."""

    def __init__(self, runner: Runs, sight: Sight, embeddings: Embeddings) -> None:
        self._runner = runner
        self._sight = sight
        self._embeddings = embeddings

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """See StepRunner."""
        return self._runner.run(self._shown(arrays), rows)

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        """See Launcher."""
        return self._runner.launch(self._shown(arrays), rows, draws)

    def _shown(self, arrays: StepArrays) -> StepArrays:
        is_image = arrays.token_ids >= FIRST_ID
        places = np.flatnonzero(is_image)
        if not len(places):
            self._sight.show_nothing()
            return arrays
        rows = self._embeddings.rows(arrays.token_ids[places])
        self._sight.show(torch.from_numpy(places), rows)
        ids = np.where(is_image, self._sight.image_token_id, arrays.token_ids)
        return replace(arrays, token_ids=ids)

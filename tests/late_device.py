"""A device that computes late, and a language model on it whose every token depends on every slot
of its cache that it should read."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.steps.runner import TorchRunner

_MASK = (1 << 61) - 1


class HashModel:
    """A Model. A slot holds a number made of its token and of the slot before it."""

    def __init__(self, num_blocks: int, block_size: int, vocabulary_size: int = 40) -> None:
        self._slots = [0] * (num_blocks * block_size)
        self._block_size = block_size
        self._vocabulary_size = vocabulary_size
        self.num_steps = 0

    def forward(self, inputs: StepInputs) -> Tensor:
        self.num_steps += 1
        starts = inputs.query_starts.tolist()
        tables = inputs.block_tables.tolist()
        tokens, positions = inputs.token_ids.tolist(), inputs.positions.tolist()
        slots = inputs.slot_mapping.tolist()
        found = {}
        for row, (start, end) in enumerate(pairwise(starts)):
            for place in range(start, end):
                if slots[place] < 0:
                    found[place] = 0  # only fills up a batch
                    continue
                past = [self._at(tables[row], position) for position in range(positions[place])]
                state = hash_after(past[-1] if past else 0, tokens[place])
                self._slots[slots[place]] = state
                found[place] = sum(past) + state
        wanted = [self._logits(found[place]) for place in inputs.sample_rows.tolist()]
        return torch.stack(wanted) if wanted else torch.empty(0, self._vocabulary_size)

    def _at(self, table: list[int], position: int) -> int:
        block = table[position // self._block_size]
        return self._slots[block * self._block_size + position % self._block_size]

    def _logits(self, seed: int) -> Tensor:
        values = np.random.default_rng(seed).normal(size=self._vocabulary_size)
        return torch.from_numpy(2 * values).float()


def hash_after(state: int, token: int) -> int:
    """What a slot holds."""
    return (state * 6364136223846793005 + token * 2654435761 + 1442695040888963407) & _MASK


class LateRunner:
    """A StepRunner and a Launcher that computes a launched step only when somebody waits for it or
    for a later one: whoever reads early, or counts on what is not there yet, is found out."""

    def __init__(self, runner: TorchRunner) -> None:
        self._runner = runner
        self._queue: list[Callable[[], None]] = []
        self.most_under_way = 0
        self.num_launched = 0

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        assert not self._queue, "a step by itself while another is under way"
        return self._runner.run(arrays, rows)

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        found: list[list[int]] = []
        self.num_launched += 1
        self._queue.append(lambda: found.append(self._runner.launch(arrays, rows, draws)()))
        self.most_under_way = max(self.most_under_way, len(self._queue))

        def wait() -> list[int]:
            while not found:
                self._queue.pop(0)()
            return found[0]

        return wait


class LateStages:
    """A StageRunner that computes a step when its logits are asked for, and no sooner."""

    def __init__(self, runner: TorchRunner) -> None:
        self._runner = runner
        self._under_way: list[StepArrays] = []
        self.numbers_under_way: list[int] = []
        """How many steps were, when each had begun."""

    def begin(self, arrays: StepArrays, rows: list[int]) -> Callable[[], Tensor]:
        assert arrays.token_ids.min() >= 0, "a token that is not known yet"
        self._under_way.append(arrays)
        self.numbers_under_way.append(len(self._under_way))

        def compute() -> Tensor:
            assert self._under_way.pop(0) is arrays, "a later step before an earlier one"
            return self._runner.run(arrays, rows)

        return compute

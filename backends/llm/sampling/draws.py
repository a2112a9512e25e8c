"""How tokens are drawn from logits: by temperature, top_k, top_p and min_p, on any device. Pure.

Whoever draws brings what each row wishes as tensors, and a number in [0, 1) for each: the same
numbers give the same tokens, wherever they are drawn and whatever else is in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.sampling.randomness import uniform

FIRST_CANDIDATES = 1024
"""So many of the likeliest tokens nearly always hold the probability that top_p asks for; sorting
the whole vocabulary takes ten times as long."""
_ROWS_TOGETHER = 4
"""Of the whole vocabulary, where a draw runs on the host: five numbers a token for each row of a
large batch would be the most memory that a step takes, and not be in the processor's caches."""
_COLUMNS = ("temperature", "top_p", "min_p")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What each row wishes, in columns, [rows, 1]."""

    numbers: Tensor
    """float64, in [0, 1)."""
    top_k: Tensor
    """int64; 0: no limit."""
    temperature: Tensor
    """float32, as those below."""
    top_p: Tensor
    min_p: Tensor

    def of(self, places: Tensor | list[int]) -> "Wishes":
        """Those of some rows."""
        return Wishes(
            self.numbers[places], self.top_k[places],
            self.temperature[places], self.top_p[places], self.min_p[places],
        )  # fmt: skip


def wish_arrays(
    samplings: Sequence[Sampling], seeds: Sequence[int], positions: Sequence[int]
) -> list[np.ndarray]:
    """The fields of `Wishes`. A number depends on the seed and on how many tokens came before."""
    numbers = uniform(np.array(seeds, dtype=np.uint64), np.array(positions, dtype=np.uint64))
    # Limited, for clients may give numbers that no tensor holds.
    top_k = [min(sampling.top_k, 1 << 31) for sampling in samplings]
    columns = [
        np.array([getattr(sampling, name) for sampling in samplings], dtype=np.float32)
        for name in _COLUMNS
    ]
    return [a[:, None] for a in (numbers, np.maximum(np.array(top_k, dtype=np.int64), 0), *columns)]


def draw_plain(logits: Tensor, wishes: Wishes) -> Tensor:
    """From all tokens: int64 [rows]."""
    rows = _ROWS_TOGETHER if logits.is_cpu else len(logits)
    some = [slice(first, first + rows) for first in range(0, len(logits), rows)]
    drawn = [
        pick(torch.softmax(logits[at] / wishes.temperature[at], dim=-1), wishes.numbers[at])
        for at in some
    ]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


def draw_likely(
    logits: Tensor, wishes: Wishes, num_candidates: int = FIRST_CANDIDATES
) -> tuple[Tensor, Tensor]:
    """From the likeliest tokens, int64 [rows]; and for which rows these hold all that is to be
    kept, bool [rows]. The tokens of the others mean nothing."""
    tempered = logits / wishes.temperature
    size = logits.shape[1]
    values, ids = torch.topk(tempered, min(num_candidates, size), dim=-1)
    probabilities = torch.exp(values - torch.logsumexp(tempered, dim=-1, keepdim=True))
    kept, is_enough = keep(probabilities, wishes, is_whole=values.shape[1] == size)
    return ids.gather(1, pick(kept, wishes.numbers).unsqueeze(1))[:, 0], is_enough


def keep(probabilities: Tensor, wishes: Wishes, *, is_whole: bool) -> tuple[Tensor, Tensor]:
    """Sets to 0 what a row leaves out of its `probabilities`, [rows, candidates], best first.

    Also says for which rows the candidates held all that is to be kept.
    """
    places = torch.arange(probabilities.shape[1], device=probabilities.device)
    kept = probabilities * (probabilities >= wishes.min_p * probabilities[:, :1])
    kept = kept * ((places < wishes.top_k) | (wishes.top_k == 0))
    # Whether what lies behind the candidates is left out anyway; else it has the rest of 1.
    has_all = (wishes.top_k > 0) & (wishes.top_k <= probabilities.shape[1])
    is_complete = (kept[:, -1:] == 0) | has_all | is_whole
    total = torch.where(is_complete, kept.sum(dim=-1, keepdim=True), 1.0)
    before = kept.cumsum(dim=-1) - kept
    # The first stays even if its share is too small for float32.
    is_kept = (before < wishes.top_p * total) | (wishes.top_p >= 1.0) | (places == 0)
    kept = torch.where(is_kept, kept, 0.0)
    is_enough = is_complete | ((kept[:, -1:] == 0) & (wishes.min_p == 0))
    return kept, is_enough[:, 0]


def pick(weights: Tensor, numbers: Tensor) -> Tensor:
    """The column in which each row's number falls, by weight: int64 [rows]."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    picked = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)[:, 0]
    return picked.clamp_max(weights.shape[1] - 1)


@dataclass(frozen=True, slots=True)
class Draws:
    """How a step's tokens are chosen where its logits lie, without a word from the host."""

    state_rows: np.ndarray
    """int64 [rows]: where each row's sequence keeps its last token."""
    plain: np.ndarray
    """int64: the rows that draw from all tokens. Those neither here nor below are greedy."""
    likely: np.ndarray
    """int64: the rows that draw from some."""
    wishes: list[np.ndarray]
    """Of all rows; empty if all are greedy."""

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that `chosen` reads."""
        return [self.state_rows, self.plain, self.likely, *self.wishes]


def chosen(logits: Tensor, draws: Draws, tensors: list[Tensor], undecided: int) -> Tensor:
    """A token for each row of `logits`, int64 [rows]: `undecided` where the likeliest tokens do not
    hold all that a row draws from. `tensors`: `draws.arrays` on the device."""
    tokens = logits.argmax(dim=-1)
    if not draws.wishes:
        return tokens
    _, plain, likely, *columns = tensors
    wishes = Wishes(*columns)
    if len(draws.plain):
        tokens[plain] = draw_plain(logits[plain], wishes.of(plain))
    if len(draws.likely):
        drawn, is_enough = draw_likely(logits[likely], wishes.of(likely), FIRST_CANDIDATES)
        tokens[likely] = torch.where(is_enough, drawn, undecided)
    return tokens

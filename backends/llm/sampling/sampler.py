"""Logits to tokens, a whole batch at once, each row by its own wishes.

The order is vLLM's, because it decides whether outputs agree: log probabilities are read first;
then allowed tokens, bad words, stop tokens that are too early, bias, penalties; then the most
likely token, or temperature, min_p, top_k, top_p, typical_p and the draw. A row's result depends on
no other row: rows are grouped by what they need, never by what their neighbours need.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.api import BackendFailed, InvalidRequest, Sampling, ServingError
from trivet.backends.llm.device.border import brought, listed, placed, true_places
from trivet.backends.llm.sampling.draws import (
    FIRST_CANDIDATES,
    Wishes,
    draw_likely,
    draw_plain,
    keep,
    pick,
    wish_arrays,
)
from trivet.backends.llm.sampling.thinking import ThinkingBudget

log = logging.getLogger(__name__)
_GREEDY = 1e-5
"""Temperatures below that are taken for 0, as in vLLM."""


class Constraint(Protocol):
    """What a grammar says about the next token."""

    def mask(self) -> Tensor:
        """Allowed tokens, bool [vocabulary]. Raises ServingError when it cannot say."""


@dataclass(slots=True, eq=False)
class RowState:
    """What sampling must know of one request."""

    sampling: Sampling
    seed: int
    prompt_ids: Sequence[int]
    end_ids: tuple[int, ...]
    """Tokens that end the output: not before `min_tokens`."""
    bad_word_ids: tuple[tuple[int, ...], ...] = ()
    constraint: Constraint | None = None
    thinking: ThinkingBudget | None = None
    output_ids: list[int] = field(default_factory=list)
    is_greedy: bool = field(init=False)
    has_rules: bool = field(init=False)
    """Whether the logits may have to be changed. Like the others found once, not at each step."""
    wants_logprobs: bool = field(init=False)

    def __post_init__(self) -> None:
        s = self.sampling
        self.is_greedy = s.temperature < _GREEDY
        self.wants_logprobs = s.logprobs is not None
        self.has_rules = (
            self.constraint is not None
            or self.thinking is not None
            or s.min_tokens > 0
            or bool(s.logit_bias or s.allowed_token_ids or self.bad_word_ids)
            or s.repetition_penalty != 1.0
            or s.frequency_penalty != 0.0
            or s.presence_penalty != 0.0
        )

    @property
    def needs_host(self) -> bool:
        """Whether its next token cannot be chosen before the last one is known on the host, or
        needs more than the device draws by itself."""
        return self.has_rules or self.wants_logprobs or self.sampling.typical_p < 1.0

    @property
    def is_filtered(self) -> bool:
        """Whether the draw is among some tokens only."""
        s = self.sampling
        return s.top_k > 0 or s.top_p < 1.0 or s.min_p > 0.0 or s.typical_p < 1.0


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of one place: the token itself and the likeliest, best first, or those that were asked of."""

    token_id: int
    logprob: float
    rank: int
    """1 and the number of tokens that are likelier: not bounded by how many of those are told."""
    top_ids: list[int]
    top_logprobs: list[float]


def sample(logits: Tensor, rows: Sequence[RowState]) -> tuple[list[int], dict[int, ServingError]]:
    """One token for each row of `logits`, float32 [rows, vocabulary], which is changed.

    Also the rows whose own wishes cannot be met, with a text; their tokens mean nothing.
    """
    errors: dict[int, ServingError] = {}
    for index, row in enumerate(rows):
        if row.has_rules and (error := _try_process(logits[index], row)):
            errors[index] = error
            logits[index].zero_()
    if all([row.is_greedy for row in rows]):  # noqa: C419  # a list is twice as fast
        return listed(logits.argmax(dim=-1)), errors
    return _draw_groups(logits, rows), errors


def logprobs_of(
    logits: Tensor, token_ids: Sequence[int], num_top: int, asked: Sequence[int] = ()
) -> list[Logprobs]:
    """Log probabilities of a token for each row of `logits`, and of the `num_top` likeliest, or of
    those that are `asked` of."""
    totals = torch.logsumexp(logits, dim=-1, keepdim=True)
    own = logits.gather(1, placed(token_ids, logits.device).unsqueeze(1))
    ranks = (logits > own).sum(dim=-1) + 1
    if asked:
        ids = placed(asked, logits.device).expand(len(logits), -1)
        values = logits.gather(1, ids)
    else:
        values, ids = torch.topk(logits, num_top, dim=-1) if num_top else (logits[:, :0],) * 2
    found = map(listed, ((own - totals)[:, 0], ranks, ids, values - totals))
    return [
        Logprobs(token, logprob, rank, [int(i) for i in top_ids], top)
        for token, logprob, rank, top_ids, top in zip(token_ids, *found, strict=True)
    ]


# -- what changes the logits -----------------------------------------------------------------------


def _try_process(logits: Tensor, row: RowState) -> ServingError | None:
    """Why this row alone fails: its neighbours must not."""
    try:
        _process(logits, row)
    except ServingError as error:
        return error
    except Exception:
        log.exception("a request's sampling rules failed")
        return BackendFailed("its sampling rules failed; the server log has the details")
    if logits.max() > -torch.inf:
        return None
    return InvalidRequest(
        "its sampling rules (grammar, allowed_token_ids, bad_words, min_tokens, logit_bias) allow "
        f"no token behind {len(row.output_ids)} tokens of output"
    )


def _process(logits: Tensor, row: RowState) -> None:
    """Applies a row's own rules to its logits, float32 [vocabulary], in place."""
    sampling = row.sampling
    if row.constraint is not None:
        allowed = brought(row.constraint.mask(), logits.device)
        logits[: len(allowed)].masked_fill_(~allowed, -torch.inf)
        logits[len(allowed) :] = -torch.inf  # of an adapter that has more tokens than its base
    if sampling.allowed_token_ids:
        _keep_only(logits, sampling.allowed_token_ids)
    for word in row.bad_word_ids:
        head = list(word[:-1])
        if not head or row.output_ids[-len(head) :] == head:
            logits[word[-1]] = -torch.inf
    if len(row.output_ids) < sampling.min_tokens:
        logits[list(row.end_ids)] = -torch.inf
    if sampling.logit_bias:
        ids = placed(list(sampling.logit_bias), logits.device)
        logits[ids] += logits.new_tensor(list(sampling.logit_bias.values()))
    _penalise(logits, row)
    if row.thinking is not None and (token := row.thinking.forced(row.output_ids)) is not None:
        # Whatever else the request forbids.
        logits.fill_(-torch.inf)
        logits[token] = 0.0


def _keep_only(logits: Tensor, token_ids: Sequence[int]) -> None:
    ids = placed(token_ids, logits.device)
    kept = logits[ids]
    logits.fill_(-torch.inf)
    logits[ids] = kept


def _penalise(logits: Tensor, row: RowState) -> None:
    sampling = row.sampling
    if sampling.repetition_penalty != 1.0:
        tokens = placed([*row.prompt_ids, *row.output_ids], logits.device)
        seen = torch.unique(tokens)
        values = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if row.output_ids and (sampling.frequency_penalty or sampling.presence_penalty):
        tokens = placed(row.output_ids, logits.device)
        ids, counts = torch.unique(tokens, return_counts=True)
        logits[ids] -= sampling.frequency_penalty * counts + sampling.presence_penalty


# -- the draw --------------------------------------------------------------------------------------


def _draw_groups(logits: Tensor, rows: Sequence[RowState]) -> list[int]:
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_group(row), []).append(index)
    if len(groups) == 1:
        return listed(_DRAWS[next(iter(groups))](logits, rows))
    drawn = torch.zeros(len(rows), dtype=torch.int64, device=logits.device)
    for kind, members in groups.items():
        drawn[members] = _DRAWS[kind](logits[members], [rows[index] for index in members])
    return listed(drawn)


def _group(row: RowState) -> str:
    if row.is_greedy:
        return "greedy"
    if row.sampling.typical_p < 1.0:
        return "typical"
    return "filtered" if row.is_filtered else "plain"


def _greedy(logits: Tensor, _: Sequence[RowState]) -> Tensor:
    return logits.argmax(dim=-1)


def _plain(logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    return draw_plain(logits, _wishes(rows, logits.device))


def _filtered(logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    """Draws among the likeliest tokens; rows that these do not satisfy get the whole vocabulary."""
    wishes = _wishes(rows, logits.device)
    wanted = max(FIRST_CANDIDATES, *(row.sampling.top_k for row in rows))
    tokens, is_enough = draw_likely(logits, wishes, wanted)
    for index in true_places(~is_enough):
        tempered = logits[index : index + 1] / wishes.temperature[index]
        tokens[index] = _filtered_alone(tempered, wishes.of([index]))[0]
    return tokens


def _typical(logits: Tensor, rows: Sequence[RowState]) -> Tensor:
    """Locally typical sampling (Meister et al., 2022), one row at a time: few ask for it."""
    tokens = []
    wishes = _wishes(rows, logits.device)
    for index, (row, values) in enumerate(zip(rows, logits / wishes.temperature, strict=True)):
        logprobs = torch.log_softmax(values, dim=-1)
        probabilities = logprobs.exp()
        entropy = -(probabilities * logprobs.nan_to_num(neginf=0.0)).sum()
        order = torch.sort((-logprobs - entropy).abs()).indices
        before = probabilities[order].cumsum(dim=-1) - probabilities[order]
        is_kept = torch.zeros_like(values, dtype=torch.bool)
        is_kept[order[before < row.sampling.typical_p]] = True
        is_kept[order[0]] = True
        values = values.masked_fill(~is_kept, -torch.inf).unsqueeze(0)
        own = wishes.of([index])
        if row.sampling.top_k > 0 or row.sampling.top_p < 1:
            tokens.append(_filtered_alone(values, own))
        else:
            tokens.append(pick(torch.softmax(values, dim=-1), own.numbers))
    return torch.cat(tokens)


def _filtered_alone(tempered: Tensor, wishes: Wishes) -> Tensor:
    values, order = torch.sort(tempered, dim=-1, descending=True)
    kept, _ = keep(torch.softmax(values, dim=-1), wishes, is_whole=True)
    return order.gather(1, pick(kept, wishes.numbers).unsqueeze(1))[:, 0]


def _wishes(rows: Sequence[RowState], device: torch.device) -> Wishes:
    arrays = wish_arrays(
        [row.sampling for row in rows],
        [row.seed for row in rows],
        [len(row.output_ids) for row in rows],
    )
    return Wishes(*(brought(torch.from_numpy(array), device) for array in arrays))


_DRAWS = {"greedy": _greedy, "plain": _plain, "filtered": _filtered, "typical": _typical}

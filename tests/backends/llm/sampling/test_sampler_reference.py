"""The sampler keeps the tokens that `transformers` keeps, with the same probabilities, and draws
from them as often as they say, whatever else is in the batch."""

import random
from collections import Counter
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.sampling.sampler import RowState, logprobs_of, sample

VOCABULARY = 60
NUM_DRAWS = 4_000
PROMPT, OUTPUT = [3, 5, 5, 8], [1, 3, 3, 9]
CHI_SQUARE_PER_DEGREE = 2.0
"""With at least 8 degrees of freedom exceeded by chance about once in twenty-five."""


def logits_of(number: int) -> Tensor:
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(number))


def row(sampling: Sampling, seed: int = 0) -> RowState:
    return RowState(sampling, seed, PROMPT, (), output_ids=list(OUTPUT))


def warped(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities by the library's own processors, and plain formulas for what it lacks."""
    s, scores = sampling, logits.unsqueeze(0).clone()
    ids = torch.tensor([PROMPT + OUTPUT])
    for token, bias in s.logit_bias.items():
        scores[0, token] += bias
    processors: list[Any] = []
    if s.repetition_penalty != 1.0:
        processors.append(transformers.RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    scores = run(processors, ids, scores)
    for token, count in Counter(OUTPUT).items():
        scores[0, token] -= s.frequency_penalty * count + s.presence_penalty
    processors = [transformers.TemperatureLogitsWarper(s.temperature)]
    if s.min_p:
        processors.append(transformers.MinPLogitsWarper(s.min_p))
    if s.top_k:
        processors.append(transformers.TopKLogitsWarper(s.top_k))
    if s.top_p < 1:
        processors.append(transformers.TopPLogitsWarper(s.top_p))
    if s.typical_p < 1:
        processors.append(transformers.TypicalLogitsWarper(s.typical_p))
    return torch.softmax(run(processors, ids, scores), dim=-1)[0]


def run(processors: list[Any], ids: Tensor, scores: Tensor) -> Tensor:
    for processor in processors:
        scores = processor(ids, scores)
    return scores


SAMPLINGS = {
    "plain": Sampling(),
    "temperature": Sampling(temperature=0.6),
    "hot": Sampling(temperature=1.7),
    "top_k": Sampling(top_k=9),
    "top_p": Sampling(top_p=0.8),
    "min_p": Sampling(min_p=0.08),
    "typical_p": Sampling(typical_p=0.7),
    "all three": Sampling(temperature=1.4, min_p=0.01, top_k=20, top_p=0.9),
    "repetition": Sampling(temperature=1.2, repetition_penalty=1.5),
    "penalties": Sampling(temperature=1.5, frequency_penalty=0.9, presence_penalty=-0.7),
    "bias": Sampling(temperature=1.5, logit_bias={4: 3.0, 3: -2.0, 59: 5.0}),
    "everything": Sampling(
        temperature=1.5, top_k=30, top_p=0.95, repetition_penalty=1.2, frequency_penalty=0.4,
        presence_penalty=0.3, logit_bias={7: 2.0},
    ),
}  # fmt: skip


def draws(sampling: Sampling, logits: Tensor) -> list[int]:
    tokens, errors = sample(
        logits.repeat(NUM_DRAWS, 1), [row(sampling, 1000 + seed) for seed in range(NUM_DRAWS)]
    )
    assert not errors
    return tokens


@pytest.mark.parametrize("name", SAMPLINGS)
def test_draws_have_the_probabilities_of_transformers(name: str) -> None:
    logits = logits_of(len(name))
    wanted = warped(logits, SAMPLINGS[name])
    found = torch.bincount(torch.tensor(draws(SAMPLINGS[name], logits)), minlength=VOCABULARY)
    assert found[wanted == 0].sum() == 0, "a token that is to be left out was drawn"
    expected = NUM_DRAWS * wanted.double()
    often = expected >= 5
    assert (found[expected >= 20] > 0).all()
    rest = torch.stack([found[~often].sum().double(), expected[~often].sum()])
    terms = (found[often] - expected[often]) ** 2 / expected[often]
    chi_square = float(terms.sum() + (rest[0] - rest[1]) ** 2 / rest[1].clamp_min(5))
    assert chi_square < CHI_SQUARE_PER_DEGREE * max(int(often.sum()) - 1, 8)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_likeliest_token_is_that_of_transformers(name: str) -> None:
    for number in range(10):
        logits = logits_of(1000 + number)
        chosen = SAMPLINGS[name]
        narrow = Sampling(
            temperature=0.0,
            repetition_penalty=chosen.repetition_penalty,
            frequency_penalty=chosen.frequency_penalty,
            presence_penalty=chosen.presence_penalty,
            logit_bias=chosen.logit_bias,
        )
        wanted = Sampling(**{**as_fields(narrow), "temperature": 1.0})
        tokens, _ = sample(logits.unsqueeze(0).clone(), [row(narrow)])
        assert tokens == [int(warped(logits, wanted).argmax())]


def as_fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in sampling.__dataclass_fields__}


@pytest.mark.more_of("O38")
def test_mixed_batch_gives_each_row_what_it_gets_alone() -> None:
    chance = random.Random(5)
    names = [chance.choice([*SAMPLINGS]) for _ in range(200)]
    samplings = [
        Sampling(temperature=0.0) if chance.random() < 0.2 else SAMPLINGS[name] for name in names
    ]
    logits = torch.stack([logits_of(number) for number in range(200)])
    together, _ = sample(logits.clone(), [row(s, seed) for seed, s in enumerate(samplings)])
    alone = [
        sample(logits[seed : seed + 1].clone(), [row(s, seed)])[0][0]
        for seed, s in enumerate(samplings)
    ]
    assert together == alone
    assert len(set(together)) > 10


@pytest.mark.parametrize("seed", range(6))
def test_tokens_kept_are_those_of_transformers_over_random_settings(seed: int) -> None:
    chance = random.Random(seed)
    sampling = Sampling(
        temperature=chance.uniform(0.5, 2.5),
        top_k=chance.choice([0, 1, 5, 40]),
        top_p=chance.choice([1.0, 0.3, 0.9]),
        min_p=chance.choice([0.0, 0.02]),
        repetition_penalty=chance.choice([1.0, 1.3]),
    )
    logits = logits_of(seed)
    wanted = warped(logits, sampling)
    found = set(draws(sampling, logits))
    assert found <= set(wanted.nonzero()[:, 0].tolist())
    assert found >= set((wanted > 20 / NUM_DRAWS).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("num_top", [0, 2])
def test_a_rank_counts_the_likelier_tokens_however_many_are_told(num_top: int) -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 3.0, 4.0, -torch.inf]]).repeat(6, 1)
    found = logprobs_of(logits, range(6), num_top)
    assert [each.rank for each in found] == [5, 1, 3, 3, 2, 6]


def test_tokens_that_are_asked_of_are_told_whether_likely_or_not() -> None:
    logits = logits_of(3).unsqueeze(0)
    wanted = torch.log_softmax(logits[0], dim=-1)
    (found,) = logprobs_of(logits, [4], 2, [0, 4, 2])
    assert found.top_ids == [0, 4, 2]
    assert found.top_logprobs == pytest.approx(wanted[[0, 4, 2]].tolist())
    assert found.logprob == pytest.approx(wanted[4].item())

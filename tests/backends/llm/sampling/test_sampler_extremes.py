"""Numbers at the edge of what a request may say leave each row at least its first token."""

import pytest
import torch

from trivet.backends.api import Sampling
from trivet.backends.llm.sampling.sampler import RowState, sample

VOCABULARY = 500
LIKELIEST = 77


def drawn(sampling: Sampling) -> int:
    """The token chosen where one is twice as likely as each other."""
    logits = torch.zeros(1, VOCABULARY)
    logits[0, LIKELIEST] = 1.0
    tokens, errors = sample(logits, [RowState(sampling, 1, [1, 2], (), (), None)])
    assert not errors
    return tokens[0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_p=1e-300),
        Sampling(top_p=1e-45),
        Sampling(top_k=1),
        Sampling(top_k=2**63, top_p=1e-300),
        Sampling(temperature=1e-300),
    ],
)
def test_narrowest_choice_is_the_likeliest_token(sampling: Sampling) -> None:
    assert drawn(sampling) == LIKELIEST


@pytest.mark.parametrize("typical_p", [1e-300, 1e-45, 0.0001])
def test_narrowest_typical_choice_is_the_most_typical_token(typical_p: float) -> None:
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    logprobs = torch.log_softmax(logits[0], dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum()
    most_typical = int((-logprobs - entropy).abs().argmin())
    sampling = Sampling(typical_p=typical_p)
    for seed in range(4):
        tokens, _ = sample(logits.clone(), [RowState(sampling, seed, [1, 2], (), (), None)])
        assert tokens == [most_typical]


def test_more_tokens_than_there_are_may_be_asked_for() -> None:
    assert 0 <= drawn(Sampling(top_k=2**63)) < VOCABULARY

"""Log probabilities of prompts and outputs are those of `transformers`."""

from dataclasses import replace

import pytest
from real_engine import (
    GREEDY,
    Result,
    hub_logprobs,
    needs_weights,
    open_engine,
    real_tokenizer,
    submit,
)
from torch import Tensor

from trivet.backends.llm.messages import TopLogprobs

pytestmark = needs_weights
TOLERANCE = 1e-3
TEXTS = ("The capital of France is Paris, and", "def f(x):\n    return", "你好")
NUM_TOP = 5


def prompts() -> list[list[int]]:
    return [real_tokenizer().encode(text, add_special_tokens=False) for text in TEXTS]


def check(found: list[TopLogprobs], token_ids: list[int], wanted: Tensor) -> None:
    assert [each[0] for each in found] == token_ids
    for (token, logprob, rank, top_ids, top), row in zip(found, wanted, strict=True):
        assert logprob == pytest.approx(float(row[token]), abs=TOLERANCE)
        # Sums in another order move values a little, and with them tokens that lie close together.
        likelier = (row > row[token] + TOLERANCE).sum(), (row > row[token] - TOLERANCE).sum()
        assert likelier[0] < rank <= likelier[1]
        assert top == pytest.approx(row.topk(NUM_TOP).values.tolist(), abs=TOLERANCE)
        assert top == pytest.approx(row[top_ids].tolist(), abs=TOLERANCE)


@pytest.mark.parametrize(
    "budget", [*(pytest.param(budget, marks=pytest.mark.slow) for budget in (4, 512)), 64]
)
def test_logprobs_equal_transformers(budget: int) -> None:
    driven = open_engine(max_batched_tokens=budget, max_num_seqs=4)
    sampling = replace(GREEDY, max_tokens=4, logprobs=NUM_TOP, prompt_logprobs=NUM_TOP)
    results = driven.run([submit(str(i), ids, sampling) for i, ids in enumerate(prompts())])
    for index, ids in enumerate(prompts()):
        result: Result = results[str(index)]
        wanted = hub_logprobs([*ids, *result.tokens])
        assert len(result.tokens) == 4
        check(result.prompt_logprobs or [], ids[1:], wanted[: len(ids) - 1])
        check(result.logprobs, result.tokens, wanted[len(ids) - 1 : -1])
        assert [rank for _, _, rank, _, _ in result.logprobs] == [1] * len(result.tokens)

"""Greedy outputs of the engine are those of `transformers`, however its cache, chunks and batches
are cut. A token may differ only where the reference's own best two logits are a tie."""
# ruff: noqa: RUF001  # scripts whose letters look like others

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from hub_reference import hub_model
from real_engine import (
    GREEDY,
    SMOLLM2,
    DrivenEngine,
    needs_weights,
    open_engine,
    real_tokenizer,
    rescheduled,
)

pytestmark = [needs_weights, pytest.mark.timeout(600)]
NUM_NEW = 12
TIE = 1e-3
"""Logits that lie nearer may come out in another order when sums are taken in another order."""
LENGTHS = (
    [1] * 10 + [2] * 10 + [3] * 20 + [7] * 20 + [16] * 14 + [17] * 14 + [33] * 2
    + [59] * 6 + [65] * 2 + [129, 200]
)  # fmt: skip
FEW = [*range(2, 90, 16), 96]
"""Seven of the prompts, of all kinds of text, one of 65 tokens."""
NUM_FEW_NEW = 4
BLOCK_SIZES, BUDGETS, CACHING = (1, 16, 64), (16, 64, 0), (True, False)
SOME_SETTINGS = [
    (16, True), (0, False),
    *(
        pytest.param(budget, caching, marks=pytest.mark.slow)
        for budget, caching in ((16, False), (64, True), (64, False), (0, True))
    ),
]  # fmt: skip
SOME_BLOCK_SIZES = [16, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 64))]
TEXTS = (
    "Gravity is the force by which a planet draws objects toward its centre. It keeps the planets "
    "in orbit around the sun and the moon around the earth, and it is why tides rise and fall. ",
    "def fibonacci(n: int) -> list[int]:\n    a, b = 0, 1\n    out = []\n    while a < n:\n"
    "        out.append(a)\n        a, b = b, a + b\n    return out\n\n\nprint(fibonacci(1000))\n",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. ",
    "السلام عليكم ورحمة الله وبركاته، كيف حالك اليوم؟ أتمنى لك يوما سعيدا. ",
    "नमस्ते दुनिया, आज मौसम बहुत अच्छा है। 👩‍👩‍👧‍👦🎉🚀 e\u0301 ñ ü 한국어 텍스트 ",
    "the cat sat on the mat and " * 6,
    "0 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765 ",
    '{"name": "Ada", "tags": ["a", "b"], "size": 3.14, "nested": {"ok": true, "no": null}} ',
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nParis."
    "<|im_end|>\n<|im_start|>user\nAnd what of Peru?<|im_end|>\n<|im_start|>assistant\n",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What `transformers` says after one prompt."""

    tokens: list[int]
    runners_up: list[int]
    margins: list[float]
    """By how much the best logit is above the second."""


@cache
def prompts() -> list[list[int]]:
    """A hundred, of all kinds at all lengths."""
    texts = [text * (1 + 400 // len(text)) for text in TEXTS]
    streams = [real_tokenizer().encode(text, add_special_tokens=False) for text in texts]
    found = []
    for number, length in enumerate(LENGTHS):
        stream, start = streams[number % len(streams)] * 4, 7 * (number // len(streams)) % 31
        found.append(stream[start : start + length])
    assert [len(prompt) for prompt in found] == LENGTHS
    return found


def references(chosen: Sequence[int] = range(len(LENGTHS))) -> list[Reference]:
    """Of those prompts; those of equal length together, so that nothing is padded."""
    lengths = {LENGTHS[index] for index in chosen}
    for length in lengths:
        _refer([index for index in chosen if LENGTHS[index] == length and index not in _REFERENCES])
    return [_REFERENCES[index] for index in chosen]


_REFERENCES: dict[int, Reference] = {}


def _refer(members: Sequence[int]) -> None:
    """Asks the reference for prompts of one length."""
    if members:
        generated = _generate(torch.tensor([prompts()[index] for index in members]))
        _REFERENCES.update(zip(members, generated, strict=True))


def _generate(ids: torch.Tensor) -> list[Reference]:
    generated = hub_model(SMOLLM2).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NUM_NEW,
        eos_token_id=-1,  # no token ends the output
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = generated.sequences[:, ids.shape[1] :].tolist()
    best, order = torch.stack(generated.logits, dim=1).topk(2, dim=-1)
    margins = (best[..., 0] - best[..., 1]).tolist()
    assert order[..., 0].tolist() == tokens
    return [Reference(*each) for each in zip(tokens, order[..., 1].tolist(), margins, strict=True)]


def check(outputs: Sequence[Sequence[int]], wanted: Sequence[Reference]) -> None:
    """Token for token, up to the first tie that fell otherwise: what follows it is another text."""
    for number, (output, reference) in enumerate(zip(outputs, wanted, strict=True)):
        assert output
        for place, token in enumerate(output):
            if token == reference.tokens[place]:
                continue
            margin = reference.margins[place]
            assert margin < TIE, (number, place, output, reference.tokens, margin)
            assert token == reference.runners_up[place], (number, place, token)
            break


@pytest.fixture(scope="module", params=SOME_BLOCK_SIZES)
def built(request: pytest.FixtureRequest) -> DrivenEngine:
    return open_engine(block_size=request.param, max_num_seqs=32)


def cut(built: DrivenEngine, budget: int, *, caching: bool) -> DrivenEngine:
    return rescheduled(
        built,
        block_size=built.engine._scheduler._block_size,
        max_batched_tokens=budget,
        prefix_caching=caching,
    )


def check_together(driven: DrivenEngine, members: Sequence[int], num_new: int) -> None:
    """Prompts in one batch, then one again of which a cache has a block of any size."""
    sampling = replace(GREEDY, max_tokens=num_new)
    for chosen in (members, [96]):
        outputs = driven.tokens([prompts()[index] for index in chosen], sampling)
        assert {len(output) for output in outputs} == {num_new}
        check(outputs, references(chosen))


@pytest.mark.parametrize(("budget", "caching"), SOME_SETTINGS)
def test_seven_prompts_equal_transformers_for_every_setting(
    built: DrivenEngine, budget: int, caching: bool
) -> None:
    driven = cut(built, budget, caching=caching)
    check_together(driven, FEW, NUM_FEW_NEW)
    assert (driven.engine.stats()["cached_tokens"] > 0) == caching
    assert driven.engine.stats()["kv_usage"] == 0


def test_steps_launched_ahead_equal_transformers(built: DrivenEngine) -> None:
    driven = cut(built, 64, caching=True)
    driven.engine._launcher = driven.engine._runner  # type: ignore[assignment]
    check_together(driven, FEW, NUM_NEW)
    assert driven.engine.stats()["kv_usage"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("block_size", "budget", "caching"), [(16, 64, True), (1, 16, False)])
def test_hundred_prompts_equal_transformers(block_size: int, budget: int, caching: bool) -> None:
    driven = open_engine(
        block_size=block_size,
        max_batched_tokens=budget,
        prefix_caching=caching,
        max_num_seqs=13,
    )
    outputs = driven.tokens(prompts(), GREEDY)
    assert {len(output) for output in outputs} == {NUM_NEW}
    check(outputs, references())


@pytest.mark.slow
def test_prompts_alone_equal_transformers() -> None:
    driven = open_engine()
    sampling = replace(GREEDY, max_tokens=NUM_FEW_NEW)
    outputs = [driven.tokens([prompts()[index]], sampling)[0] for index in FEW]
    check(outputs, references(FEW))


@pytest.mark.parametrize(
    ("block_size", "cache_tokens", "caching"),
    [
        (16, 112, True),
        pytest.param(16, 112, False, marks=pytest.mark.slow),
        pytest.param(1, 96, True, marks=pytest.mark.slow),
    ],
)
def test_preempted_sequences_equal_transformers(
    block_size: int, cache_tokens: int, caching: bool
) -> None:
    chosen = [index for index, length in enumerate(LENGTHS) if length in (16, 17, 33, 59)][::3]
    driven = scarce(block_size, cache_tokens, caching=caching)
    outputs = driven.tokens([prompts()[index] for index in chosen], GREEDY)
    assert driven.engine.stats()["preemptions"] == len(driven.preempted) >= 3
    assert set(driven.preempted) <= set(driven.results)
    assert {len(output) for output in outputs} == {NUM_NEW}
    check(outputs, references(chosen))


def scarce(block_size: int, cache_tokens: int, *, caching: bool) -> DrivenEngine:
    """With so small a cache that sequences drive each other out."""
    # SmolLM2: keys and values of 30 layers of 3 heads of 64 numbers of 4 bytes.
    token_bytes = 2 * 30 * 3 * 64 * 4
    return open_engine(
        block_size=block_size,
        kv_cache_bytes=token_bytes * (cache_tokens + block_size),
        max_model_len=cache_tokens,
        prefix_caching=caching,
        max_num_seqs=16,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("caching", CACHING)
@pytest.mark.parametrize("budget", BUDGETS)
def test_hundred_prompts_equal_transformers_for_every_setting(
    built: DrivenEngine, budget: int, caching: bool
) -> None:
    driven = cut(built, budget, caching=caching)
    check_together(driven, range(len(LENGTHS)), NUM_NEW)
    alone = [driven.tokens([prompt], GREEDY)[0] for prompt in prompts()]
    check(alone, references())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("caching", CACHING)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_hundred_preempted_prompts_equal_transformers(block_size: int, caching: bool) -> None:
    driven = scarce(block_size, 256, caching=caching)
    check(driven.tokens(prompts(), GREEDY), references())
    assert driven.engine.stats()["preemptions"] >= 2

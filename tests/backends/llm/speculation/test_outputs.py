"""Outputs are those without speculation, token by token, whatever is guessed."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Row
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from paged_models import save_model, save_tokenizer
from real_engine import DrivenEngine, Result
from torch import Tensor

from trivet.backends.api import Grammar, Sampling
from trivet.backends.llm.engine import assemble, generation
from trivet.backends.llm.engine.generation import StepResult
from trivet.backends.llm.messages import Abort, Submit
from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.settings import EngineSettings

GUESSES = {
    "ngram": {"speculative_config": '{"method": "ngram", "prompt_lookup_min": 1}'},
    "suffix": {"speculative_config": '{"method": "suffix", "prompt_lookup_min": 1}'},
    "draft_model": {"speculative_config": '{"num_speculative_tokens": 3}'},
}
FREE = Sampling(max_tokens=24, temperature=1.0, ignore_eos=True)
GREEDY = replace(FREE, temperature=0.0)
SAMPLINGS = (
    GREEDY,
    FREE,
    replace(FREE, temperature=0.3, top_p=0.8, logprobs=3),
    replace(FREE, top_k=5, min_p=0.02, typical_p=0.9),
    replace(GREEDY, repetition_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1),
    replace(GREEDY, ignore_eos=False, min_tokens=4, logprobs=2),
    replace(GREEDY, max_tokens=1),
    replace(GREEDY, prompt_logprobs=2, logit_bias={7: 1.0}),
    replace(GREEDY, allowed_token_ids=(5, 6, 7)),
    replace(GREEDY, ignore_eos=False, grammar=Grammar("regex", "(abc|abd){4}")),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and one that says nearly the same in `draft/`."""
    folder = save_model(tmp_path_factory.mktemp("model"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * parameter.std() * torch.randn_like(parameter)
    model.save_pretrained(folder / "draft")
    save_tokenizer(folder / "draft")
    return folder


def settings(folder: Path, method: str, **more: Any) -> EngineSettings:
    given: dict[str, Any] = {
        "device": "cpu", "dtype": "float32", "num_threads": 1, "max_num_seqs": 8,
        "kv_cache_bytes": 1 << 23, "max_model_len": 128, "block_size": 4,
    }  # fmt: skip
    given |= GUESSES.get(method, {})
    if method == "draft_model":
        given["speculative_model"] = str(folder / "draft")
    return EngineSettings(str(folder), **{**given, **more})


Open = Callable[..., DrivenEngine]


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Open]:
    """Opens engines that guess by a method, or not at all."""
    engines = []

    def opened(method: str, **more: Any) -> DrivenEngine:
        driven = DrivenEngine()
        driven.engine, _ = assemble.make_engine(settings(folder, method, **more), driven.send)
        engines.append(driven.engine)
        return driven

    yield opened
    for engine in engines:
        engine.close()


def requests() -> list[Submit]:
    """Prompts that repeat themselves, of several lengths."""
    phrase = [11, 12, 13, 14, 15, 16]
    prompts = [[*phrase, *phrase, 30 + number, *phrase[: 1 + number % 6]] for number in range(10)]
    return [
        Submit(str(number), ids, sampling, number, [], [1], 0, "")
        for number, (ids, sampling) in enumerate(zip(prompts, SAMPLINGS, strict=True))
    ]


def told(results: dict[str, Result], names: Iterable[str]) -> list[tuple[object, ...]]:
    """All but the log probabilities, which sums in another order move."""
    found = [results[name] for name in names]
    return [(each.tokens, each.finish, each.error) for each in found]


@pytest.fixture(scope="module")
def plain(opened: Open) -> dict[str, Result]:
    return opened("").run(requests())


def assert_same(driven: DrivenEngine, plain: dict[str, Result]) -> None:
    """But for the one with a grammar, whose trial has a process of its own."""
    submits = requests()[:-1]
    names = [submit.id for submit in submits]
    assert told(driven.run(submits), names) == told(plain, names)


@pytest.mark.parametrize("method", GUESSES)
def test_every_kind_of_sampling_is_told_the_same(
    opened: Open, plain: dict[str, Result], method: str
) -> None:
    driven = opened(method)
    for _ in range(2):  # the second time with a cache, and with what others have said
        results = driven.run(requests())
        assert told(results, plain) == told(plain, plain)
        for name, result in results.items():
            for ours, theirs in zip(result.logprobs, plain[name].logprobs, strict=True):
                assert ours[0] == theirs[0]
                assert ours[1] == pytest.approx(theirs[1], abs=1e-3)
            assert len(result.prompt_logprobs or []) == len(plain[name].prompt_logprobs or [])
    stats = driven.engine.stats()
    assert 0 < stats["accepted_tokens"] < stats["draft_tokens"]
    assert stats["kv_usage"] == 0
    assert len(driven.steps) < 2 * sum(len(result.tokens) for result in plain.values())


@pytest.mark.parametrize("method", GUESSES)
def test_sequences_that_are_set_back_are_told_the_same(
    opened: Open, plain: dict[str, Result], method: str
) -> None:
    bytes_of_block = 4 * 2 * 2 * 2 * 8 * 4 * (2 if method == "draft_model" else 1)
    driven = opened(method, kv_cache_bytes=36 * bytes_of_block)
    assert_same(driven, plain)
    assert driven.engine.stats()["preemptions"] > 0
    assert driven.engine.stats()["kv_usage"] == 0


def test_small_steps_leave_guesses_what_prompts_do_not_take(
    opened: Open, plain: dict[str, Result]
) -> None:
    driven = opened("draft_model", max_batched_tokens=9)
    assert_same(driven, plain)
    assert max(step.num_tokens for step in driven.steps) <= 9


class Faulty:
    """Guesses nonsense, then fails."""

    def __init__(self) -> None:
        self.num_calls = 0

    def draft(self, sequences: Row[Sequence], _rows: Row[RowState], /) -> None:
        self.num_calls += 1
        for sequence in sequences:
            sequence.draft_ids[:] = [3] * sequence.draft_room
        if self.num_calls % 2:
            raise RuntimeError("the drafter broke")

    def forget(self, sequence: Sequence) -> None:
        """Nothing to forget."""


def test_a_drafter_that_guesses_nonsense_or_fails_costs_no_request_anything(
    opened: Open, plain: dict[str, Result], caplog: pytest.LogCaptureFixture
) -> None:
    driven = opened("ngram")
    speculation = driven.engine._speculation
    assert speculation is not None
    faulty = speculation._drafter = Faulty()
    assert_same(driven, plain)
    assert faulty.num_calls > 1
    assert "guessing failed" in caplog.text


def test_guesses_that_do_not_fit_into_memory_are_computed_again(
    opened: Open, plain: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = opened("ngram")

    def full(_result: StepResult, _rows: Row[int]) -> Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(StepResult, "logits_at", full)
    assert_same(driven, plain)
    assert driven.engine.stats()["accepted_tokens"] == 0


@pytest.mark.parametrize("method", GUESSES)
def test_requests_that_are_left_take_nothing_along(opened: Open, method: str) -> None:
    driven = opened(method)
    driven.expected = 5
    for number in range(5, 10):
        driven.engine.inbox.put(Abort([str(number)]))
    submits = requests()
    driven.engine.inbox.put(Abort(["0"]))  # never there
    for submit in submits[5:]:
        driven.engine.inbox.put(submit)
    driven.engine.inbox.put(Abort([submit.id for submit in submits[5:]]))
    driven.run(submits[:5])
    assert driven.engine.stats()["kv_usage"] == 0
    speculation = driven.engine._speculation
    assert speculation is not None
    assert speculation._luck == {}


@pytest.mark.slow
def test_draws_are_distributed_as_the_model_says(opened: Open, folder: Path) -> None:
    """20,000 second tokens behind the same first one, by chi-square at one in a thousand."""
    driven = opened("draft_model", max_num_seqs=64, kv_cache_bytes=1 << 26)
    prompt = [11, 12, 13]
    sampling = replace(FREE, max_tokens=3, top_k=8, temperature=0.7)
    counts: dict[tuple[int, ...], int] = {}
    for start in range(0, 20_000, 1_000):
        submits = [
            Submit(str(seed), prompt, sampling, seed, [], [1], 0, "")
            for seed in range(start, start + 1_000)
        ]
        for result in driven.run(submits).values():
            first = tuple(result.tokens[:2])
            counts[first] = counts.get(first, 0) + 1
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    wanted = {
        (one, two): chance * share * 20_000
        for one, chance in chances(model, prompt).items()
        for two, share in chances(model, [*prompt, one]).items()
    }
    assert set(counts) <= set(wanted)
    often = {pair: count for pair, count in wanted.items() if count >= 10}
    square = sum((counts.get(pair, 0) - count) ** 2 / count for pair, count in often.items())
    # Wilson and Hilferty's approximation of the quantile.
    degrees = len(often)
    assert square < degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3


def chances(model: Any, ids: list[int]) -> dict[int, float]:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1] / 0.7
    values, tokens = logits.topk(8)
    return dict(zip(tokens.tolist(), torch.softmax(values, dim=-1).tolist(), strict=True))


def test_a_fault_behind_a_right_guess_ends_each_request_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that the same step had ended; the driven engine says if one ends twice."""
    driven = opened("draft_model")
    whole = generation.StepResult.logits_at
    submits = [
        Submit(str(number), [11, 12, 13, 14], replace(GREEDY, max_tokens=2 + number), 0, [], [1])
        for number in range(8)
    ]
    for number_of_call in range(6):
        calls = itertools.count()

        def broken(result: generation.StepResult, rows: Row[int]) -> torch.Tensor:
            if next(calls) == number_of_call:  # noqa: B023  # called before the next one
                raise RuntimeError("logits are gone")
            return whole(result, rows)

        monkeypatch.setattr(generation.StepResult, "logits_at", broken)
        results = driven.run(submits)
        assert {each.finish for each in results.values()} <= {"error", "length"}
        assert driven.engine.stats()["kv_usage"] == 0

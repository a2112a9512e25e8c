"""Steps that overlap give what steps one by one give, whatever ends, comes or goes meanwhile."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from late_device import LateRunner
from late_engine import PLAIN, OddGrammars, Run, random_script, request
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Abort, Message
from trivet.backends.llm.sampling import draws
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.steps.runner import TorchRunner


@pytest.mark.parametrize("seed", range(30))
def test_tokens_are_those_of_steps_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    script, aborted = random_script(chance)
    shape: dict[str, Any] = {
        "num_blocks": chance.choice([18, 24, 60]),  # few enough to preempt
        "block_size": chance.choice([1, 4]) if seed % 4 == 0 else 4,
        "budget": chance.choice([4, 16, None]),
        "caching": chance.random() < 0.7,
    }
    if shape["block_size"] == 1:
        shape["num_blocks"] = 80
    shape["max_num_seqs"] = chance.choice([2, 4]) if shape["budget"] == 4 else 6
    wanted, found = (Run(overlaps, **shape).play(script) for overlaps in (False, True))
    for name, tokens in wanted.tokens.items():
        if name not in aborted:
            assert found.tokens[name] == tokens, name
            assert found.ends[name] == wanted.ends[name]
    assert found.ends.keys() - aborted == wanted.ends.keys() - aborted
    for run in (wanted, found):
        run.assert_nothing_is_held()


def test_the_next_step_is_launched_before_the_last_one_is_done() -> None:
    run = Run(overlaps=True).play([[request(str(n), [3 + n]) for n in range(4)]])
    assert run.runner.most_under_way == 2
    assert set(run.ends) == {"0", "1", "2", "3"}


def test_a_sequence_that_ends_by_length_is_not_computed_further() -> None:
    sampling = replace(PLAIN, ignore_eos=True)
    found = Run(overlaps=True).play([[request("a", [5, 6], sampling)]])
    assert found.runner.num_launched == 12


def test_blocks_are_found_again_by_the_tokens_they_hold() -> None:
    sampling = replace(PLAIN, ignore_eos=True, max_tokens=20)
    first = Run(overlaps=True)
    first.play([[request("a", [5, 6], sampling)]])
    again = request("b", [5, 6, *first.tokens["a"]], sampling)
    first.play([[again]])
    wanted = Run(overlaps=False).play([[request("a", [5, 6], sampling)], *[[]] * 30, [again]])
    assert first.cached["b"] == wanted.cached["b"] == 20
    assert first.tokens == wanted.tokens


def test_preemption_costs_no_token() -> None:
    script: list[list[Message]] = [
        [request(str(n), [3 + n] * 9, replace(PLAIN, ignore_eos=True, max_tokens=30))
         for n in range(4)]
    ]  # fmt: skip
    runs = [Run(overlaps, num_blocks=18).play(script) for overlaps in (False, True)]
    assert runs[0].tokens == runs[1].tokens
    assert all(run.scheduler.stats().total_preemptions > 0 for run in runs)
    runs[1].assert_nothing_is_held()


def test_steps_that_overlap_do_not_count_each_others_time() -> None:
    script: list[list[Message]] = [
        [request(str(n), [3 + n] * 9, replace(PLAIN, ignore_eos=True)) for n in range(4)]
    ]
    for overlaps in (False, True):
        begun_s = time.monotonic()
        run = Run(overlaps).play(script)
        passed_s = time.monotonic() - begun_s
        steps = run.steps
        # The last token of each is not computed any further.
        assert sum(step.num_tokens for step in steps) == 4 * (9 + 12 - 1)
        assert sum(step.num_started for step in steps) == 4
        assert len(steps) == run.model.num_steps
        assert {step.is_decode for step in steps} == {True, False}
        assert not any(step.has_failed for step in steps)
        assert all(0 < step.forward_s <= step.seconds for step in steps)
        planning_s = sum(step.planning_s for step in steps)
        # A step that is planned while another is under way takes no time of its own for that.
        besides_s = 0.0 if overlaps else planning_s
        assert 0 < planning_s <= passed_s
        assert 0 < sum(step.seconds for step in steps) + besides_s <= passed_s


def test_a_grammar_among_others_keeps_its_word() -> None:
    run = Run(overlaps=True).play(
        [[request("a", [5, 6])], [request("odd-1", [7])], [], [request("b", [8, 9])]]
    )
    assert all(token % 2 for token in run.tokens["odd-1"][:-1])
    wanted = Run(overlaps=False).play([[request("a", [5, 6])], [request("b", [8, 9])]])
    assert (run.tokens["a"], run.tokens["b"]) == (wanted.tokens["a"], wanted.tokens["b"])


def test_a_request_for_the_host_that_waits_holds_nobody_up() -> None:
    sampling = replace(PLAIN, ignore_eos=True)
    script: list[list[Message]] = [
        [request("a", [5, 9], sampling), request("b", [5, 9], sampling), request("odd-1", [7])]
    ]
    run = Run(overlaps=True, max_num_seqs=2).play(script)
    assert run.tokens == Run(overlaps=False, max_num_seqs=2).play(script).tokens
    # Twelve steps of both, all of them before the third had a place.
    assert (run.runner.num_launched, run.runner.most_under_way) == (12, 2)


@pytest.mark.parametrize("top_p", [0.5, 0.99])
def test_rows_that_the_likeliest_tokens_do_not_satisfy_are_drawn_on_the_host(
    top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: list[list[Message]] = [
        [request(str(n), [3 + n], Sampling(temperature=1.5, top_p=top_p, max_tokens=12), n)
         for n in range(5)]
    ]  # fmt: skip
    wanted = Run(overlaps=False).play(script)
    monkeypatch.setattr(draws, "FIRST_CANDIDATES", 4)
    found = Run(overlaps=True).play(script)
    assert found.tokens == wanted.tokens
    found.assert_nothing_is_held()
    assert found.scheduler.stats().total_preemptions == 0


def test_a_request_that_takes_an_aborted_ones_name_gets_its_own_tokens() -> None:
    first, second = request("a", [5, 6]), request("a", [9, 9, 9])
    found = Run(overlaps=True).play([[first], [Abort(["a"]), second]])
    wanted = Run(overlaps=False).play([[second]])
    assert found.tokens["a"][-len(wanted.tokens["a"]) :] == wanted.tokens["a"]
    found.assert_nothing_is_held()


class ShortOfMemory(LateRunner):
    """Refuses steps of more tokens than it has memory for."""

    def __init__(self, runner: TorchRunner, most: int) -> None:
        super().__init__(runner)
        self._most = most
        self.refused: list[int] = []

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        self._check(len(arrays.token_ids))
        return super().run(arrays, rows)

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        self._check(len(arrays.token_ids))
        return super().launch(arrays, rows, draws)

    def _check(self, num_tokens: int) -> None:
        if num_tokens > self._most:
            self.refused.append(num_tokens)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")


def short_run(most: int, *, overlaps: bool) -> Run:
    run = Run(overlaps, budget=None)
    run.runner = ShortOfMemory(TorchRunner(run.model, max_num_seqs=6), most)
    launcher = run.runner if overlaps else None
    run.engine = Engine(run.scheduler, run.state, run.runner, OddGrammars(), run._send, launcher)
    return run


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_step_too_large_for_the_memory_is_computed_in_halves(overlaps: bool) -> None:
    script: list[list[Message]] = [[request(str(n), [3 + n] * 5) for n in range(2)]]
    found = short_run(6, overlaps=overlaps).play(script)
    assert found.tokens == Run(overlaps=False).play(script).tokens
    found.assert_nothing_is_held()
    long: list[list[Message]] = [[request("a", [4] * 10)]]
    found = short_run(6, overlaps=overlaps).play(long)
    assert found.tokens == Run(overlaps=False).play(long).tokens


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_does_not_fit_by_halves_fails_alone_and_asks_to_come_again(overlaps: bool) -> None:
    run = short_run(6, overlaps=overlaps)
    run.play([[request("small", [3])], [], [request("large", [4] * 20)]])
    alone = Run(overlaps=False).play([[request("small", [3])]])
    assert run.ends == {"small": alone.ends["small"], "large": "error"}
    assert run.tokens["small"] == alone.tokens["small"]
    assert run.kinds == {"large": "Unavailable"}
    run.assert_nothing_is_held()


class Broken(LateRunner):
    """A device that fails at a launch, or before a step has landed."""

    def __init__(self, runner: TorchRunner, fails: str) -> None:
        super().__init__(runner)
        self._fails = fails

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        if self._fails == "launch" and self.num_launched == 3:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        wait = super().launch(arrays, rows, draws)
        return self._late if self._fails == "wait" and self.num_launched == 3 else wait

    def _late(self) -> list[int]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("fails", ["launch", "wait"])
def test_a_fault_of_the_device_ends_the_engine(fails: str) -> None:
    run = Run(overlaps=True)
    run.runner = Broken(TorchRunner(run.model, max_num_seqs=6), fails)
    run.engine = Engine(run.scheduler, run.state, run.runner, OddGrammars(), run._send, run.runner)
    with pytest.raises(torch.AcceleratorError):
        run.play([[request("a", [5, 6], replace(PLAIN, ignore_eos=True))]])
    assert run.ends == {}


def test_idle_moments_are_used_until_nothing_is_left_or_somebody_asks() -> None:
    prepared: list[int] = []

    def prepare() -> bool:
        prepared.append(run.scheduler.stats().num_running)
        if len(prepared) == 3:
            run.engine.inbox.put(request("a", [5, 6]))
        return len(prepared) < 5

    run = Run(overlaps=True)
    run.engine = Engine(
        run.scheduler, run.state, run.runner, OddGrammars(), run._send, run.runner, prepare
    )
    run._script, run._open = [], {"a"}
    run.engine.run()
    assert run.ends == {"a": "length"} or run.ends == {"a": "stop"}
    assert prepared == [0] * len(prepared)
    assert len(prepared) in (4, 5)  # the fourth when the request comes, or the end

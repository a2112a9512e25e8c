"""Steps of a model in stages give what steps one by one give, and keep all stages busy."""

import random
from dataclasses import replace
from typing import Any

import pytest
from late_engine import PLAIN, Run, random_script, request

from trivet.backends.llm.messages import Abort, Message, ResetPrefixCache


@pytest.mark.parametrize("seed", range(24))
def test_tokens_are_those_of_steps_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    script, aborted = random_script(chance)
    shape: dict[str, Any] = {
        "num_blocks": chance.choice([18, 24, 60]),  # few enough to preempt
        "budget": chance.choice([4, 16, None]),
        "caching": chance.random() < 0.7,
    }
    shape["max_num_seqs"] = chance.choice([2, 4]) if shape["budget"] == 4 else 6
    wanted = Run(overlaps=False, **shape).play(script)
    found = Run(overlaps=False, num_stages=2 + seed % 3, **shape).play(script)
    for name, tokens in wanted.tokens.items():
        if name not in aborted:
            assert found.tokens[name] == tokens, name
            assert found.ends[name] == wanted.ends[name]
    assert found.ends.keys() - aborted == wanted.ends.keys() - aborted
    for run in (wanted, found):
        run.assert_nothing_is_held()


@pytest.mark.parametrize("num_stages", [2, 3, 4])
def test_as_many_steps_are_under_way_as_there_are_stages(num_stages: int) -> None:
    sampling = replace(PLAIN, ignore_eos=True)
    script: list[list[Message]] = [[request(str(n), [3 + n], sampling) for n in range(6)]]
    run = Run(overlaps=False, num_stages=num_stages).play(script)
    numbers = run.stages.numbers_under_way
    assert max(numbers) == num_stages
    # All but the steps with which it begins, and those that find nothing left to begin.
    full = [number for number in numbers if number == num_stages]
    assert len(full) >= len(numbers) - 2 * num_stages


def test_chunks_of_one_prompt_follow_each_other_through_the_stages() -> None:
    script: list[list[Message]] = [[request("a", [5] * 40)]]
    run = Run(overlaps=False, num_stages=2, budget=8).play(script)
    assert run.stages.numbers_under_way[:5] == [1, 2, 2, 2, 2]
    assert run.tokens == Run(overlaps=False, budget=8).play(script).tokens


def test_preemption_costs_no_token() -> None:
    sampling = replace(PLAIN, ignore_eos=True, max_tokens=30)
    script: list[list[Message]] = [[request(str(n), [3 + n] * 9, sampling) for n in range(4)]]
    runs = [
        Run(overlaps=False, num_blocks=18, num_stages=num_stages).play(script)
        for num_stages in (1, 3)
    ]
    assert runs[0].tokens == runs[1].tokens
    assert all(run.scheduler.stats().total_preemptions > 0 for run in runs)
    runs[1].assert_nothing_is_held()


def test_a_request_that_takes_an_aborted_ones_name_gets_its_own_tokens() -> None:
    first, second = request("a", [5, 6]), request("a", [9, 9, 9])
    found = Run(overlaps=False, num_stages=3).play([[first], [Abort(["a"]), second]])
    wanted = Run(overlaps=False).play([[second]])
    assert found.tokens["a"][-len(wanted.tokens["a"]) :] == wanted.tokens["a"]
    found.assert_nothing_is_held()


def test_a_reset_lands_what_is_under_way() -> None:
    sampling = replace(PLAIN, ignore_eos=True)
    stem = [request(str(n), [3 + n] * 9, sampling) for n in range(4)]
    script: list[list[Message]] = [list(stem), [], [ResetPrefixCache(is_anew=True)], []]
    found = Run(overlaps=False, num_stages=2).play(script)
    assert found.tokens == Run(overlaps=False).play([list(stem)]).tokens
    found.assert_nothing_is_held()

"""Who sleeps for whom."""

import pytest
from google.protobuf import text_format

from trivet.backends.api import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.sleeping.policy import Awake, Terms, who_sleeps

NOW_S = 100.0


def awake(index: int, size: int = 10, **more: object) -> Awake:
    return Awake(index, {None: size}, **more)  # type: ignore[arg-type] # fields of it


def chosen(lacking: int, *found: Awake, priority: int | None = None) -> list[int]:
    return [e.index for e in who_sleeps({None: lacking}, found, NOW_S, priority=priority)]


def test_the_ones_that_were_not_used_for_longest_sleep_as_many_as_it_takes() -> None:
    found = awake(0, used_s=3), awake(1, used_s=1), awake(2, used_s=2)
    assert chosen(15, *found) == [1, 2]


def test_a_lower_priority_sleeps_before_one_that_was_used_less() -> None:
    assert chosen(5, awake(0, used_s=1, priority=1), awake(1, used_s=9)) == [1]


def test_nobody_sleeps_in_vain() -> None:
    assert chosen(25, awake(0), awake(1)) == []


def test_what_is_bound_stays() -> None:
    assert chosen(5, awake(0, is_bound=True), awake(1)) == [1]


def test_who_has_nothing_there_stays() -> None:
    assert chosen(5, Awake(0, {1: 10}), awake(1)) == [1]


def test_nothing_that_computes_makes_way_where_nobody_waits() -> None:
    assert chosen(5, awake(0, is_busy=True)) == []


def test_a_busy_one_makes_way_once_it_has_had_its_turn() -> None:
    assert chosen(5, awake(0, is_busy=True, woke_s=NOW_S - 1), priority=0) == []
    assert chosen(5, awake(0, is_busy=True, woke_s=NOW_S - 3), priority=0) == [0]
    slow = awake(0, is_busy=True, woke_s=NOW_S - 3, wake_took_s=2.0)
    assert chosen(5, slow, priority=0) == []


def test_a_busy_one_does_not_make_way_for_the_less_important() -> None:
    assert chosen(5, awake(0, is_busy=True, priority=2), priority=1) == []


def test_idle_ones_go_first() -> None:
    busy = awake(0, is_busy=True, used_s=0)
    assert chosen(5, busy, awake(1, used_s=9, priority=5), priority=9) == [1]


def terms(text: str) -> Terms:
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in (pair.split("=") for pair in text.split())
    )
    return Terms.read(text_format.Parse(f'name: "m" {parameters}', ModelConfig()), 60.0)


def test_a_config_says_what_else_than_the_options_counts() -> None:
    assert terms("") == Terms(idle_s=60.0)
    assert terms("idle_unload_s=0").idle_s == 0
    assert terms("idle_unload_s=2.5 memory_pinned=true memory_priority=-3") == Terms(True, -3, 2.5)


@pytest.mark.parametrize(
    "text",
    [
        "memory_pinned=yes",
        "memory_priority=high",
        "memory_priority=--1",
        f"memory_priority={'9' * 5000}",
        "idle_unload_s=-1",
    ],
)
def test_what_a_config_cannot_say_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match=text.split("=", maxsplit=1)[0]):
        terms(text)

"""What a policy may say; what it may not is named."""

from pathlib import Path
from typing import Any

import pytest

from trivet.backends.api import InvalidConfig
from trivet.server.rollouts.guards import Kind, guard_of
from trivet.server.rollouts.policy import Policy, parse_policy, read_policy

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key": ({"step": [1, 100]}, "no key 'step'; did you mean 'steps'"),
    "no step": ({"steps": []}, "steps is to be a list of percentages"),
    "steps that fall": ({"steps": [5, 1, 100]}, "are to rise and to end with 100"),
    "steps that end early": ({"steps": [1, 50]}, "are to rise and to end with 100"),
    "a step of nothing": ({"steps": [0, 100]}, "from 0.01 to 100"),
    "a step too fine": ({"steps": [0.001, 100]}, "at most two decimals"),
    "a bake without end": ({"bake_s": float("inf")}, "bake_s is to be a number from 0"),
    "a bake longer than its step": ({"bake_s": 7200}, "max_step_s, 3600, is less than bake_s"),
    "no guard": ({"guards": {}}, "at least one guard"),
    "an unknown guard": ({"guards": {"error": 0}}, "'error' is not known.*did you mean 'errors'"),
    "a tolerance that is none": ({"guards": {"errors": "none"}}, "to be a number from 0"),
    "samples that never come": (
        {"min_samples": 1_000_000_000},
        "a step of 1 % can never get its 1000000000 samples within 3600 s: that needs",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    table, text = WRONG[name]
    with pytest.raises(InvalidConfig, match=text):
        parse_policy(table)


def test_what_it_says_comes_back_as_it_was() -> None:
    table = {"steps": [0.5, 10, 100], "bake_s": 60, "guards": {"p99": 0.2, "outcome:score": 0}}
    policy = parse_policy(table)

    assert policy.steps == (50, 1000, 10_000)
    assert parse_policy(policy.table) == policy
    assert parse_policy(Policy().table) == Policy()


def test_guards_by_their_names() -> None:
    found = {name: guard_of(name, 0.1) for name in ("p50", "p999", "first_token_p95", "refusals")}

    assert found["p50"].quantile == 0.5
    assert found["p999"].quantile == 0.999
    assert (found["first_token_p95"].series, found["first_token_p95"].quantile) == (
        "first_token",
        0.95,
    )
    assert found["refusals"].kind is Kind.RATE
    assert guard_of("outcome:score", 0).kind is Kind.OUTCOME


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"policy .*none.toml cannot be read"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "p.toml").write_text("steps = [1]")
    with pytest.raises(InvalidConfig, match=r"p.toml: steps are to rise"):
        read_policy(tmp_path / "p.toml")

"""How much there is for models, and why one cannot be among them."""

import pytest

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.server.models.sleeping.budget import Budget, Place, Sizes

GIB = 1 << 30


def room_at(place: Place) -> int:
    return {None: 64 * GIB, 0: 80 * GIB}.get(place, 0)


def parse(*given: str) -> Budget | None:
    return Budget.parse(given, room_at)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("8GiB", {None: 8 * GIB}),
        ("1.5 GB", {None: 1_500_000_000}),
        ("1048576", {None: 1048576}),
        ("4096B", {None: 4096}),
        ("0.5", {None: 32 * GIB}),
        ("50%", {None: 32 * GIB}),
        ("0:0.25", {0: 20 * GIB}),
    ],
)
def test_a_size_or_a_share_of_what_is_there(text: str, limits: dict[Place, int]) -> None:
    budget = parse(text)
    assert budget is not None
    assert budget.limits == limits


@pytest.mark.parametrize("text", ["", "lots", "8 gib", "0", "1.5", "120%", "x:8GiB", "-1", "7:0.5"])
def test_what_is_no_size_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidConfig, match="--model-memory-budget is '"):
        parse(text)


def test_without_the_option_there_is_no_limit() -> None:
    assert parse() is None


def test_a_model_larger_than_the_budget_is_refused_with_the_arithmetic() -> None:
    budget = Budget({None: 4 * GIB})
    with pytest.raises(LoadFailed) as caught:
        budget.require("large", {None: 5 * GIB}, {"kept": {None: GIB}})
    assert caught.value.message == (
        "model 'large' takes 5.00 GiB of host memory, and --model-memory-budget is 4.00 GiB: give "
        "the models more, or pin fewer"
    )


def test_a_model_that_does_not_fit_beside_what_is_pinned_is_refused_by_their_names() -> None:
    budget = Budget({None: 4 * GIB})
    fixed: dict[str, Sizes] = {
        "kept": {None: 2 * GIB},
        "other": {None: GIB, 0: GIB},
        "elsewhere": {0: GIB},
    }
    with pytest.raises(LoadFailed) as caught:
        budget.require("m", {None: 2 * GIB}, fixed)
    assert caught.value.message == (
        "model 'm' takes 2.00 GiB of host memory, and --model-memory-budget is 4.00 GiB, of which "
        "1.00 GiB are left beside what is pinned ('kept' 2.00 GiB, 'other' 1.00 GiB): give the "
        "models more, or pin fewer"
    )

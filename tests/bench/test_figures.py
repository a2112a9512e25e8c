"""Rows of the bench's table: ratios of rates, with what may be said of them."""

import pytest

from bench.figures import Figures, ratio_row

BARE = [100.0, 110.0, 90.0, 100.0, 105.0, 95.0, 100.0, 100.0]


def rates(values: list[float]) -> list[Figures]:
    return [{"rate_per_s": value} for value in values]


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ([1.01, 1.02, 1.03] * 3, "OK"),
        ([0.97, 0.98, 0.96] * 3, "MISS"),
        ([0.9, 1.1, 1.0] * 3, "UNSURE"),
    ],
)
def test_a_ratio_is_held_to_its_bar_by_the_interval_of_all_rounds(
    factors: list[float], verdict: str
) -> None:
    ours = [rate * factor for rate, factor in zip(BARE, factors, strict=False)]
    row = ratio_row("a", "tokens/s", {"ours": rates(ours), "bare": rates(BARE)}, 1.0)
    assert row.verdict == verdict
    assert row.interval is not None
    assert row.note == f"{row.interval.low:.2f} to {row.interval.high:.2f}"


def test_a_side_whose_work_is_twice_as_much_is_twice_as_fast_by_it() -> None:
    seen = {"ours": rates([50.0] * 8), "bare": rates([100.0] * 8)}
    row = ratio_row("a", "tokens/s", seen, 1.0, by=2.0, note="by bytes")
    assert row.result == pytest.approx(1.0)
    assert row.note.endswith("; by bytes")

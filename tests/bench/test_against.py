"""What `python -m bench --against` judges by, and one run of it."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench.__main__ import _options
from bench.against.checkout import CannotCompare
from bench.against.comparison import Comparison, Cost, bar_of, parse_bar, verdict
from bench.against.engine_step import LLM, MOVED
from bench.against.interval import MIN_ROUNDS, Interval, num_left_out, ratio_interval
from bench.against.parts import compare

ROOT = Path(__file__).resolve().parents[2]


def test_half_the_cost_is_a_ratio_of_two() -> None:
    interval = ratio_interval([20.0, 40.0, 60.0], [10.0, 20.0, 30.0])
    assert [interval.low, interval.middle, interval.high] == pytest.approx([2, 2, 2])


def test_few_rounds_are_judged_by_their_range() -> None:
    interval = ratio_interval([1.0, 1.1, 1.3], [1.0, 1.0, 1.0])
    assert (interval.low, interval.high) == pytest.approx((1.0, 1.3))


@pytest.mark.parametrize(
    ("num_rounds", "left_out"), [(5, 0), (6, 0), (7, 2), (8, 3), (10, 8), (12, 13), (20, 52)]
)
def test_interval_has_the_ends_of_wilcoxons_table(num_rounds: int, left_out: int) -> None:
    """The table's critical value at 5 % (two-sided) is what may lie outside at each end."""
    assert num_left_out(num_rounds) == left_out
    assert MIN_ROUNDS == 6


def test_one_disturbed_round_of_twelve_does_not_move_the_interval_far() -> None:
    new = [100.0, 101, 99, 100, 102, 98, 100, 101, 99, 100, 99, 101]
    disturbed = [*new[:-1], 300.0]
    interval = ratio_interval([100.0] * 12, disturbed)
    assert interval.low > 0.97
    assert interval.high < 1.03


def test_interval_of_the_other_direction_is_the_inverse() -> None:
    old, new = [3.0, 4, 5, 6, 7, 8, 9], [4.0, 4, 6, 5, 9, 8, 8]
    there, back = ratio_interval(old, new), ratio_interval(new, old)
    assert there.low == pytest.approx(1 / back.high)
    assert there.middle == pytest.approx(1 / back.middle)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.98, 1.05, "OK"), (0.97, 0.99, "OK"), (0.9, 0.96, "MISS"), (0.95, 1.0, "UNSURE")],
)
def test_only_an_interval_below_the_bar_is_a_miss(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(low, (low + high) / 2, high), 0.97) == expected


def test_cpu_time_is_judged_and_wall_clock_time_only_shown() -> None:
    old, new = [Cost(100.0, 10.0)] * 6, [Cost(100.0, 5.0)] * 6
    found = Comparison("infer/grpc/1", old, new)
    assert found.verdict == "OK"
    assert found.wall.middle == pytest.approx(0.5)


def test_last_bar_that_fits_a_cell_counts() -> None:
    bars = dict([parse_bar("infer/*=1.0"), parse_bar("infer/*/1=1.1")])
    assert bar_of("infer/grpc/1", bars) == 1.1
    assert bar_of("infer/grpc/8", bars) == 1.0
    assert bar_of("llm-step", bars) == 0.97


@pytest.mark.parametrize("text", ["1.1", "infer/*/1", "infer/*/1=fast"])
def test_bar_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"CELL=RATIO|could not convert"):
        parse_bar(text)


def test_only_takes_several_parts() -> None:
    options = _options(["--only", "llm-step,infer"])
    assert options.only == ["infer", "llm-step"]


def test_only_names_the_parts_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _options(["--only", "infer,infre"])
    assert "no part 'infre'; there are infer, ensemble" in capsys.readouterr().err


def test_part_that_cannot_be_compared_is_refused_before_anything_runs() -> None:
    with pytest.raises(CannotCompare, match="minilm: --against compares infer, ensemble, llm-step"):
        compare("HEAD", ["infer", "minilm"], 1, 1, {})


def test_bar_of_no_cell_is_refused_before_anything_runs() -> None:
    with pytest.raises(CannotCompare, match="--bar infer/3: no such cell"):
        compare("HEAD", ["infer"], 1, 1, {"infer/3": 1.0})


def test_unknown_commit_is_refused() -> None:
    with pytest.raises(CannotCompare, match="'no-such' is no commit"):
        compare("no-such", ["infer"], 1, 1, {})


def test_every_moved_module_is_where_the_bench_looks_first() -> None:
    for name in MOVED:
        import_module(f"{LLM}.{name}")


@pytest.mark.slow
def test_a_commit_is_measured_against_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--only", "infer", "--against", "HEAD"]
    command += ["--seconds", "0.2", "--rounds", "2"]
    command += ["--json", str(tmp_path / "cells.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "cells.json").read_text())["cells"]
    assert [cell["verdict"] for cell in cells] == ["UNSURE"] * 6  # by two rounds nobody is judged
    assert all(0.2 < cell["ratio"] < 5 for cell in cells)
    assert "infer/http/64" in done.stdout

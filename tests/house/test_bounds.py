"""Bounds of time in the tests: each is made by `patience`, so that it holds on a busy machine."""

import ast
from pathlib import Path

import pytest
from raw_bounds import TESTS, raw_bounds

FOREIGN = {
    "server/http/test_tritonclient.py": "a parameter of a request, in microseconds",
}
"""What is called a time-out and bounds no wait of a test."""


def test_no_bound_is_a_number_alone() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{bound.lineno}: {ast.unparse(bound)}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.relative_to(TESTS).as_posix() not in FOREIGN
        for bound in raw_bounds(path)
    ]
    assert found == [], "wrap these in patience(), or show an order in their place"


@pytest.mark.parametrize("name", FOREIGN)
def test_no_exception_is_listed_in_vain(name: str) -> None:
    assert raw_bounds(TESTS / name)


RAW = """
LATE_S = 2 * 30
def test(limit_s=3):
    queue.get(timeout=20)
    queue.get(timeout=LATE_S)
    queue.get(timeout=limit_s)
    thread.join(5)
    future.result(10)
    await asyncio.wait_for(answer, 5)
    asyncio.timeout(5)
    event.wait(30)
    deadline_s = time.monotonic() + 10
    took_s = time.perf_counter() - started_s
    assert took_s < 0.5
    assert time.monotonic() - started_s <= LATE_S
    assert 0.5 < time.monotonic() - started_s < 5
    assert 5 > took_s
    if took_s > 5:
        slow.append(took_s)
"""


def test_every_kind_of_raw_bound_is_found(tmp_path: Path) -> None:
    (tmp_path / "raw.py").write_text(RAW)
    found = [bound.lineno for bound in raw_bounds(tmp_path / "raw.py")]
    assert found == [4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18]


FINE = """
@pytest.mark.timeout(600)
def test(limit_s=3):
    queue.get(timeout=patience())
    queue.get(timeout=2 * patience(limit_s))
    queue.get(timeout=fires_after(0.05))
    ", ".join(words)
    pause.wait(0.05)
    deadline_s = time.monotonic() + patience(10)
    took_s = time.monotonic() - started_s
    assert took_s < patience(5)
    assert took_s < 2 * control_s
    assert took_s > 1.5
    while time.monotonic() - started_s < 2:
        ask()
"""


def test_what_is_scaled_or_compared_is_fine(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text(FINE)
    assert raw_bounds(tmp_path / "fine.py") == []

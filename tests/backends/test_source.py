"""Source files of models are run as they stand."""

import os
import sys
from pathlib import Path

import pytest

from trivet.backends.api import InvalidConfig
from trivet.backends.source import run_source


def test_a_file_that_is_replaced_within_a_second_is_the_one_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "model.py"
    for number in (1, 2):
        path.write_text(f"NUMBER = {number}\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        module = run_source(f"made_{number}", path)
        assert number == module.NUMBER
    assert [each.name for each in tmp_path.iterdir()] == ["model.py"]


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"'model\.txt' is not a Python file"):
        run_source("made", tmp_path / "model.txt")

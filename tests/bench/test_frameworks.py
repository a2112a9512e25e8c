"""The bench of frameworks tells time and memory of both sides."""

import pytest

from bench import frameworks


def test_each_framework_has_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "FRAMEWORKS", ("openvino",))

    rows = frameworks.bench_frameworks(0, 1)

    assert [row.unit for row in rows] == ["ms", "ms", "MB"]
    assert all(row.ours > 0 and row.bare > 0 for row in rows)

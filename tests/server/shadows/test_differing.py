"""In what two answers differ."""

from difflib import SequenceMatcher

import numpy as np
import pytest

from trivet.backends.api import Tensor
from trivet.server.models.shadowing import Shadow
from trivet.server.shadows.differing import differences

SETTING = Shadow("2", tolerance=1e-3, similarity=0.9)


def numbers(*values: float, name: str = "y") -> Tensor:
    return Tensor.of(name, np.array([values], np.float32))


def texts(*values: bytes) -> Tensor:
    return Tensor.of("y", np.array(values, dtype=object))


def found(first: Tensor, second: Tensor, *classes: str) -> list[str]:
    return differences([first], [second], SETTING, frozenset(classes))


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (numbers(1, 2), numbers(1, 2.001), []),
        (numbers(1, 2), numbers(1, 2.5), ["y: 1 of 2 numbers differ, by up to 0.5"]),
        (numbers(float("nan")), numbers(float("nan")), []),
        (numbers(1, 2), numbers(1), ["y: shape [1, 2] became [1, 1]"]),
        (numbers(1), texts(b"1"), ["y: FP32 became BYTES"]),
        (numbers(1), numbers(1, name="z"), ["y: it is missing", "z: it is new"]),
        (texts(b"the same"), texts(b"the same"), []),
        (texts(b"The capital is Paris."), texts(b"The capital is Paris!"), []),
        (texts(b"The capital is Paris."), texts(b"No."), ["y: a text is 8.3 % alike"]),
        (texts(b"\xff"), texts(b"\xff"), []),
    ],
)
def test_each_output_is_told(first: Tensor, second: Tensor, told: list[str]) -> None:
    assert found(first, second) == told


def test_of_many_long_texts_few_are_compared_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ratio(_: object) -> float:
        asked.append(1)
        return 0.95

    monkeypatch.setattr(SequenceMatcher, "ratio", ratio)
    ones, others = ([each * 2048] * 40 for each in (b"ab", b"ba"))
    exactly = Shadow("2", similarity=1.0)

    assert differences([texts(*ones)], [texts(*others)], exactly, frozenset()) != []
    assert len(asked) == 2
    ends = [texts(b"a" * 5000), texts(b"a" * 5000 + b"b")]
    monkeypatch.undo()
    assert differences(ends[:1], ends[1:], exactly, frozenset()) == ["y: a text is 100.0 % alike"]


def test_labels_that_flip_count_where_an_output_has_any() -> None:
    first, second = numbers(0.50001, 0.5), numbers(0.5, 0.50001)

    assert found(first, second) == []
    assert found(first, second, "y") == ["y: 1 of 1 labels flipped"]

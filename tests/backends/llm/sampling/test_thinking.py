"""Thoughts end when they have had their tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.llm.sampling.thinking import ThinkingBudget

OPEN, CLOSE = [90], [91]


def written(
    budget: ThinkingBudget, wishes: list[int], prompt: list[int] | None = None
) -> list[int]:
    """What comes out of a model that wishes to write this."""
    output: list[int] = []
    for wish in wishes:
        token = budget.forced(output)
        output.append(wish if token is None else token)
    return output


@pytest.mark.parametrize(
    ("num_tokens", "prompt", "wishes", "output"),
    [
        (2, [1], [90, 5, 6, 7, 8], [90, 5, 6, 91, 8]),
        (0, [1], [90, 5, 6], [90, 91, 6]),
        (9, [1], [90, 5, 91, 6], [90, 5, 91, 6]),
        (2, [1], [5, 6, 7, 8], [5, 6, 7, 8]),
        (2, [1, 90], [5, 6, 7, 8], [5, 6, 91, 8]),
        (2, [1, 90, 4], [5, 6, 7], [5, 91, 7]),
        (2, [1, 90, 4, 4, 4], [5, 6], [91, 6]),
        (2, [90, 4, 91], [5, 6, 7], [5, 6, 7]),
        (2, [90, 4, 91, 90], [5, 6, 7], [5, 6, 91]),
        (1, [1], [90, 5, 91, 90, 5, 6], [90, 5, 91, 90, 5, 6]),
        (1, [1], [90, 91, 5, 6], [90, 91, 5, 6]),
    ],
)
def test_the_mark_comes_behind_the_last_token_that_may(
    num_tokens: int, prompt: list[int], wishes: list[int], output: list[int]
) -> None:
    assert written(ThinkingBudget(num_tokens, OPEN, CLOSE, prompt), wishes) == output


def test_marks_of_several_tokens_come_whole_and_are_not_begun_twice() -> None:
    def of(*wishes: int) -> list[int]:
        return written(ThinkingBudget(2, [1, 2], [3, 4, 5], [9]), list(wishes))

    assert of(1, 2, 8, 8, 8, 8, 8, 7) == [1, 2, 8, 8, 3, 4, 5, 7]
    assert of(1, 2, 8, 3, 8, 8, 7) == [1, 2, 8, 3, 4, 5, 7]
    assert of(1, 8, 2, 8, 8, 8) == [1, 8, 2, 8, 8, 8]


@given(
    st.integers(0, 6),
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), min_size=30, max_size=30),
    st.sampled_from([([0], [1]), ([0, 0], [1, 2]), ([0], [1, 1, 2]), ([0, 2], [1])]),
)
def test_thoughts_are_never_longer_than_they_may_be(
    num_tokens: int, prompt: list[int], wishes: list[int], marks: tuple[list[int], list[int]]
) -> None:
    opening, closing = marks
    budget = ThinkingBudget(num_tokens, opening, closing, prompt)
    # A thought that the last wish opens has room for all that it may be and for its closing mark.
    output = written(budget, [*wishes, *[3] * (num_tokens + len(closing))])
    text = "".join(map(str, output))
    begun = text.find("".join(map(str, opening)))
    if begun >= 0 and not any(token == opening[0] for token in prompt):
        thought = text[begun + len(opening) :].partition("".join(map(str, closing)))[0]
        assert len(thought) <= num_tokens

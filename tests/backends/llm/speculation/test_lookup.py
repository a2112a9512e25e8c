"""What is found in texts that are there."""

import pytest

from trivet.backends.llm.scheduling.sequence import Sequence
from trivet.backends.llm.speculation.lookup import Lookup

VOCABULARY = 100


def guessed(lookup: Lookup, name: str, ids: list[int], room: int = 5, salt: str = "") -> list[int]:
    sequence = Sequence(name, ids, 50, cache_salt=salt)
    sequence.draft_room = room
    lookup.draft([sequence], [])
    return sequence.draft_ids


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        pytest.param([1, 2, 3, 4, 5, 6, 1, 2], [3, 4, 5, 6, 1], id="what came behind it"),
        pytest.param([1, 2, 7, 9, 1, 2, 8, 9, 1, 2], [8, 9, 1, 2, 8], id="the last time"),
        pytest.param([5, 1, 2, 7, 3, 1, 2, 8, 5, 1, 2], [7, 3, 1, 2, 8], id="the longest words"),
        pytest.param([4, 4, 4, 4], [4, 4, 4, 4, 4], id="a repeated word"),
        pytest.param([1, 2, 3, 1, 2, 3, 1, 2], [3, 1, 2, 3, 1], id="a period"),
        pytest.param([1, 2, 3, 4], [], id="nothing"),
        pytest.param([1], [], id="too short"),
        pytest.param([1, 2, 3, -5, 6, 1, 2], [3], id="an image in between"),
        pytest.param([1, 2, 3, VOCABULARY, 6, 1, 2], [3], id="a number that is no word"),
    ],
)
def test_a_sequence_goes_on_as_it_did_before(ids: list[int], wanted: list[int]) -> None:
    assert guessed(Lookup(2, 3, VOCABULARY), "a", ids) == wanted


def test_no_more_is_guessed_than_there_is_room_for() -> None:
    assert guessed(Lookup(1, 3, VOCABULARY), "a", [1, 2, 3, 4, 1], room=2) == [2, 3]


def test_tokens_that_come_are_found_too() -> None:
    lookup = Lookup(2, 2, VOCABULARY)
    sequence = Sequence("a", [1, 2, 3], 50)
    sequence.draft_room = 2
    lookup.draft([sequence], [])
    assert sequence.draft_ids == []
    sequence.token_ids += [9, 1, 2]
    lookup.draft([sequence], [])
    assert sequence.draft_ids == [3, 9]


def end(lookup: Lookup, name: str, output: list[int], salt: str = "") -> None:
    sequence = Sequence(name, [50], 50, cache_salt=salt)
    sequence.token_ids += output
    lookup.forget(sequence)


def test_outputs_of_others_are_looked_in_where_that_is_wanted() -> None:
    lookup = Lookup(2, 3, VOCABULARY, num_kept_outputs=2)
    end(lookup, "old", [1, 2, 3, 4, 5])
    assert guessed(lookup, "new", [7, 1, 2]) == [3, 4, 5]
    assert guessed(lookup, "own", [1, 2, 8, 1, 2]) == [8, 1, 2, 8, 1], "its own goes first"
    alone = Lookup(2, 3, VOCABULARY)
    end(alone, "old", [1, 2, 3, 4, 5])
    assert guessed(alone, "new", [7, 1, 2]) == []


def test_callers_do_not_see_what_others_were_told() -> None:
    lookup = Lookup(2, 3, VOCABULARY, num_kept_outputs=2)
    end(lookup, "a", [1, 2, 3], salt="one")
    assert guessed(lookup, "b", [7, 1, 2], salt="two") == []
    assert guessed(lookup, "c", [7, 1, 2], salt="one") == [3]


def test_the_oldest_outputs_are_dropped_with_all_that_leads_to_them() -> None:
    lookup = Lookup(2, 3, VOCABULARY, num_kept_outputs=2)
    for number in range(5):
        end(lookup, str(number), [10 + number, 2, 3, 20 + number])
    assert lookup._others is not None
    assert guessed(lookup, "x", [12, 2]) == []
    assert guessed(lookup, "x", [14, 2]) == [3, 24]
    assert {number for number, _ in lookup._others._ends.values()} == {3, 4}


def test_a_long_prompt_is_indexed_over_several_steps() -> None:
    lookup = Lookup(3, 3, 10_000)
    ids = [*range(5_000), 4_990, 4_991, 4_992]
    sequence = Sequence("a", ids, 50)
    sequence.draft_room = 2
    lookup.draft([sequence], [])
    assert sequence.draft_ids == []
    lookup.draft([sequence], [])
    assert sequence.draft_ids == [4_993, 4_994]

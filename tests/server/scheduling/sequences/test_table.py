"""The sequence table: slots, backlog and idleness, by a clock that the test moves."""

import pytest

from trivet.server.scheduling.sequences.sequence import Sequence, SequenceTicket
from trivet.server.scheduling.sequences.table import SequenceTable

IDLE_NS = 1000


def open_all(table: SequenceTable, count: int, now_ns: int = 0) -> list[Sequence]:
    return [table.open(number + 1, now_ns) for number in range(count)]


def places(sequences: list[Sequence]) -> list[tuple[int, int] | None]:
    slots = [each.slot for each in sequences]
    return [(slot.instance, slot.number) if slot else None for slot in slots]


def make_busy(sequence: Sequence) -> None:
    sequence.is_running = True


def test_instances_fill_up_evenly_and_the_rest_waits() -> None:
    sequences = open_all(SequenceTable(2, 2, IDLE_NS), 5)
    assert places(sequences) == [(0, 0), (1, 0), (0, 1), (1, 1), None]


def test_an_instance_that_cannot_compute_gets_new_sequences_last() -> None:
    dead = {0}
    table = SequenceTable(2, 2, IDLE_NS, lambda instance: instance not in dead)
    sequences = open_all(table, 3)
    assert places(sequences) == [(1, 0), (1, 1), (0, 0)]
    dead.clear()
    table.close(sequences[2])
    assert places([table.open(8, 0), table.open(9, 0)]) == [(0, 0), (0, 1)]


def test_a_slot_goes_to_the_sequence_that_has_waited_longest() -> None:
    table = SequenceTable(1, 1, IDLE_NS)
    first, second, third = open_all(table, 3)
    assert table.close(first) is second
    assert places([first, second, third]) == [None, (0, 0), None]


def test_a_sequence_that_ends_in_the_backlog_gets_no_slot() -> None:
    table = SequenceTable(1, 1, IDLE_NS)
    first, second, third = open_all(table, 3)
    assert table.close(second) is None
    assert table.close(first) is third


def test_a_free_slot_is_used_again_lowest_first() -> None:
    table = SequenceTable(1, 3, IDLE_NS)
    sequences = open_all(table, 3)
    for each in (sequences[2], sequences[0]):
        table.close(each)
    assert places([table.open(9, 0)]) == [(0, 0)]


def test_after_its_end_has_come_an_id_names_a_new_sequence() -> None:
    table = SequenceTable(1, 2, IDLE_NS)
    old = table.open("a", 0)
    table.forget_id(old)
    assert table.find("a") is None
    new = table.open("a", 0)
    table.close(old)
    assert table.find("a") is new


def test_numbers_and_texts_are_different_ids() -> None:
    table = SequenceTable(1, 2, IDLE_NS)
    number, text = table.open(5, 0), table.open("5", 0)
    assert (table.find(5), table.find("5")) == (number, text)


def test_only_sequences_without_requests_become_idle() -> None:
    table = SequenceTable(1, 3, IDLE_NS)
    idle, running, waiting = open_all(table, 3, now_ns=1)
    make_busy(running)
    waiting.waiting.append(SequenceTicket(None, None, 1))  # type: ignore[arg-type] # not looked at
    assert table.take_idle(IDLE_NS) == []
    assert table.take_idle(IDLE_NS + 1) == [idle]
    table.close(idle)
    assert table.next_idle_ns() == 2 * IDLE_NS + 1


def test_a_request_puts_idleness_off() -> None:
    table = SequenceTable(1, 2, IDLE_NS)
    first, second = open_all(table, 2)
    table.touch(first, 500)
    assert table.next_idle_ns() == IDLE_NS
    assert table.take_idle(IDLE_NS) == [second]
    table.close(second)
    assert table.take_idle(1499) == []
    assert table.take_idle(1500) == [first]


def test_an_empty_table_needs_no_clock() -> None:
    table = SequenceTable(1, 1, IDLE_NS)
    table.close(table.open(1, 0))
    assert table.next_idle_ns() == 0
    assert len(table) == 0


@pytest.mark.more_of("R25")
def test_slots_cost_nothing_before_they_are_used() -> None:
    table = SequenceTable(2, 2**31 - 1, 1000)
    slots = [table.open(number, 0).slot for number in range(4)]
    assert [(each.number, each.instance) for each in slots if each] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    assert table.num_slots == 2 * (2**31 - 1)

"""What was written survives whatever happens to who wrote it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from trivet.server.rollouts.book import MOST_HISTORY, Book, Entry
from trivet.server.rollouts.journal import FILE, FileJournal, NoJournal, Record, written
from trivet.server.rollouts.machine import Rollout
from trivet.server.rollouts.policy import parse_policy
from trivet.server.rollouts.shortening import shortened
from trivet.server.rollouts.writing import Writer

RECORDS: list[Record] = [{"event": "started", "n": n} for n in range(3)]


def kept(folder: Path) -> list[Record]:
    journal = FileJournal(folder)
    try:
        return journal.read()
    finally:
        journal.close()


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "state")
    journal.append(RECORDS[:2])
    journal.append(RECORDS[2:])

    assert journal.read() == RECORDS
    assert journal.read() == []
    journal.close()
    assert kept(tmp_path / "state") == RECORDS


def test_a_file_that_is_cut_anywhere_loses_no_whole_line(tmp_path: Path) -> None:
    whole = b"".join(map(written, RECORDS))
    ends = [n for n in range(len(whole)) if whole[n : n + 1] == b"\n"]
    for size in sorted({*range(0, len(whole), 16), *ends, *(end + 1 for end in ends[:-1])}):
        (tmp_path / FILE).write_bytes(whole[:size])
        journal = FileJournal(tmp_path)
        before = journal.read()
        journal.append([{"event": "on"}])
        after = journal.read()
        journal.close()

        assert before == RECORDS[: whole[:size].count(b"\n")]
        assert after[-1] == {"event": "on"}
        assert [*before, *after] == kept(tmp_path)


def test_a_broken_line_in_the_middle_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = map(written, RECORDS)
    (tmp_path / FILE).write_bytes(first + second.replace(b"started", b"stirred") + third)

    assert kept(tmp_path) == [RECORDS[0], RECORDS[2]]
    assert "broken line" in caplog.text


def test_one_of_several_decides_and_another_follows_when_it_ends(tmp_path: Path) -> None:
    first, second = FileJournal(tmp_path), FileJournal(tmp_path)
    assert first.lead_s()
    assert not second.lead_s()

    first.append(RECORDS)
    assert second.read() == RECORDS
    first.close()
    assert second.lead_s()
    second.close()


def test_a_reason_with_half_a_character_is_kept_as_far_as_it_can_be(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.append([{"event": "rolled back", "reason": "no file \udcff"}])

    assert journal.read() == [{"event": "rolled back", "reason": "no file ?"}]
    journal.close()


class Gone(NoJournal):
    """A place that is away by the end."""

    def close(self) -> None:
        raise OSError("it is away")


async def test_a_place_that_is_away_holds_up_no_end(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(Gone(), lambda _: None)
    await writer.start()
    await writer.close()

    assert "roll-outs are not handed over: it is away" in caplog.text


class CutOff(NoJournal):
    """A place that takes this server for the one who decides, for ten seconds each time."""

    def __init__(self) -> None:
        self.is_away = False

    def lead_s(self) -> float:
        if self.is_away:
            raise OSError("it is away")
        return 10.0


async def test_who_is_cut_off_decides_only_as_long_as_others_take_him_for_the_one() -> None:
    journal, now_s = CutOff(), [100.0]
    writer = Writer(journal, lambda _: None, lambda: now_s[0])
    await writer.start()
    journal.is_away = True
    now_s[0] += 9.0
    await writer.exchange()
    assert writer.leads

    now_s[0] += 1.5
    assert not writer.leads
    await writer.close()


def history(num_rollouts: int) -> list[Record]:
    """Of a version that is taken back again and again, and one that is being rolled out."""
    policy = {"steps": [1, 100], "guards": {"errors": 0}}
    numbers = count()
    records: list[Record] = [record(numbers, "adopted", version=1)]
    for version in range(2, num_rollouts + 3):
        start = {"stable": 1, "candidate": version, "files": "f", "policy": policy}
        records += [record(numbers, "started", **start), record(numbers, "began", **start)]
        saved = Rollout(parse_policy(policy), 1, version).saved()
        for elapsed_s in (1.0, 2.0):
            far = {**saved, "elapsed_s": elapsed_s}
            records.append(record(numbers, "progress", candidate=version, saved=far))
        if version < num_rollouts + 2:
            records.append(record(numbers, "rolled back", candidate=version, reason="worse"))
    return records


def record(numbers: Iterator[int], event: str, **fields: object) -> Record:
    return {"n": str(next(numbers)), "model": "m", "event": event, "by": "x", "at": "", **fields}


def entry_of(records: list[Record]) -> Entry:
    book = Book()
    for each in records:
        book.apply(each)
    return book.of("m")


@pytest.mark.parametrize("num_rollouts", [3, 900])
def test_a_shorter_journal_tells_the_same(num_rollouts: int) -> None:
    before = history(num_rollouts)
    after = shortened(before)
    first, second = entry_of(before), entry_of(shortened(after))

    assert len(after) <= min(len(before) - 2 * num_rollouts, 2 * MOST_HISTORY)
    assert first.known() == second.known()
    assert first.running is not None
    assert second.running is not None
    assert first.running.saved() == second.running.saved()
    assert list(first.history)[-500:] == list(second.history)[-500:]


def test_what_is_no_record_changes_nothing_and_goes_with_shortening() -> None:
    before = history(900)
    odd: list[Record] = [
        {"model": "m", "event": "adopted", "version": 7},
        {"n": ["1"], "model": "m", "event": "adopted", "version": 7},
        {"n": "x", "event": "adopted", "version": 7},
        {"n": "x", "model": "m", "event": 3},
        {},
    ]
    mixed = [each for record in before[:2000] for each in (record, *odd)] + before[2000:]

    assert entry_of(mixed).known() == entry_of(before).known()
    assert shortened(mixed) == shortened(before)


def test_a_file_that_became_shorter_is_read_on_by_all_who_share_it(tmp_path: Path) -> None:
    first, second, third = FileJournal(tmp_path), FileJournal(tmp_path), FileJournal(tmp_path)
    assert first.lead_s()
    many: list[Record] = [
        {"n": str(n), "event": "progress", "model": "m", "saved": "x" * 500} for n in range(3000)
    ]
    first.append(many)
    assert first.read() == second.read() == third.read() == many
    second.append(RECORDS[:1])
    first.shorten(shortened)
    third.append(RECORDS[1:2])
    first.append(RECORDS[2:])

    assert first.read() == second.read() == third.read() == RECORDS
    assert (tmp_path / FILE).stat().st_size < 100_000
    assert kept(tmp_path)[-3:] == RECORDS
    for each in (first, second, third):
        each.close()

"""What was written survives whatever happens to who wrote it."""

from pathlib import Path

import pytest

from trivet.server.rollouts.journal import FILE, FileJournal, NoJournal, Record, written
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
    assert first.leads()
    assert not second.leads()

    first.append(RECORDS)
    assert second.read() == RECORDS
    first.close()
    assert second.leads()
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

"""A journal that servers share by a real Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_site import RedisServer

from trivet.server.rollouts import redis_journal
from trivet.server.rollouts.journal import TAIL, Record
from trivet.server.rollouts.redis_journal import LEADER, LIST, RedisJournal
from trivet.server.rollouts.shortening import shortened

RECORDS: list[Record] = [{"event": "started", "n": str(n)} for n in range(3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield made
    made.stop()


@pytest.fixture
def url(server: RedisServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def test_one_writes_and_decides_and_the_other_reads_and_takes_over(url: str) -> None:
    first, second = RedisJournal(url), RedisJournal(url)
    assert first.lead_s()
    assert first.lead_s()
    assert not second.lead_s()

    first.append(RECORDS)
    assert first.read() == second.read() == RECORDS
    second.append(RECORDS[:1])
    assert first.read() == RECORDS[:1]
    first.close()
    assert second.lead_s()
    second.close()


def test_what_comes_after_redis_has_lost_all_is_read(url: str) -> None:
    first, second = RedisJournal(url), RedisJournal(url)
    first.client.delete(LIST)
    first.append(RECORDS)
    assert second.read() == RECORDS
    assert second.read() == []
    first.client.delete(LIST)
    assert second.read() == []
    first.append(RECORDS[1:2])

    assert second.read() == RECORDS[1:2]
    first.client.delete(LIST)
    first.close()
    second.close()


def test_who_has_gone_without_a_word_leads_for_a_while_only(url: str) -> None:
    first, second = RedisJournal(url), RedisJournal(url)
    assert first.lead_s()
    left_ms = first.client.pttl(LEADER)

    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 10_000
    first.client.delete(LEADER)  # as Redis does it then
    assert second.lead_s()
    assert not first.lead_s()
    second.close()
    first.close()


def test_without_redis_it_says_so(tmp_path: Path) -> None:
    gone = RedisServer(tmp_path)
    with pytest.raises(OSError, match="Redis at --rollout-state"):
        RedisJournal(f"redis://127.0.0.1:{gone.port}/0")


def test_a_list_that_became_shorter_is_read_on_by_all(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_journal, "MOST_LINES", 200)
    first, second = RedisJournal(url), RedisJournal(url)
    first.client.delete(LIST)
    many: list[Record] = [
        {"n": f"p{n}", "event": "progress", "model": "m", "saved": {}} for n in range(300)
    ]
    first.append(many)
    assert first.read() == second.read() == many
    second.append(RECORDS[:1])
    first.shorten(shortened)
    second.append(RECORDS[1:])

    assert first.read() == second.read() == RECORDS
    assert first.client.llen(LIST) == 1 + TAIL + 2
    first.client.delete(LIST)
    first.close()
    second.close()

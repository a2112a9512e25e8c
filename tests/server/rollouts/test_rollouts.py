"""What is rolled out when, who gets what meanwhile, and what is left of it after a restart."""

import asyncio
from pathlib import Path

import pytest
from patience import patience
from release_site import POLICY, Site

from trivet.backends.api import InvalidConfig, InvalidRequest, LoadFailed, NotFound
from trivet.server.models.traffic import parse_traffic
from trivet.server.rollouts import book
from trivet.server.rollouts.book import Book, Event
from trivet.server.rollouts.evidence import Counted
from trivet.server.rollouts.guards import guard_of
from trivet.server.rollouts.journal import FileJournal
from trivet.server.rollouts.looking import Look
from trivet.server.rollouts.machine import Phase


async def running(journal: FileJournal | None = None) -> Site:
    """Version 1 serves, and version 2 is on trial."""
    site = await Site.open(journal)
    site.drop(1)
    site.drop(2)
    site.rollouts.look()
    return site


def phase(site: Site) -> str:
    rollout = site.chronicle.book.of("m").rollout
    return "" if rollout is None else rollout.phase


def events(site: Site) -> list[str]:
    return [record["event"] for record in site.chronicle.book.of("m").history]


async def test_what_serves_first_needs_no_roll_out() -> None:
    site = await Site.open()
    site.drop(1, 3)

    assert site.usual() == 3
    assert events(site) == ["adopted"]


async def test_the_newest_is_on_trial_and_not_what_requests_get() -> None:
    site = await Site.open()
    site.drop(1)
    site.drop(2)

    assert site.served == {1, 2}
    assert site.asked(50) == {1: 50}
    site.rollouts.look()
    assert site.asked(50) == {1: 40, 2: 10}


async def test_step_by_step_until_it_has_all() -> None:
    site = await running()
    site.passes(5)
    assert site.asked(50) == {2: 50}
    assert site.served == {1, 2}

    site.passes(5)
    assert phase(site) == Phase.PROMOTED
    assert site.served == {2}
    assert site.asked(50) == {2: 50}


async def test_worse_is_back_at_the_next_look_until_its_files_change() -> None:
    site = await running()
    site.passes(0.5, failing=[2])

    assert phase(site) == Phase.ROLLED_BACK
    assert site.served == {1}
    assert site.asked(50) == {1: 50}
    assert site.plan is not None
    assert site.plan.withheld[2].startswith("rolled back: errors: ")
    site.load()
    assert phase(site) == Phase.ROLLED_BACK
    site.drop(2, stamp=2)
    assert phase(site) == Phase.WAITING
    assert site.served == {1, 2}


async def test_stable_stays_whatever_the_policy_of_versions_says() -> None:
    site = await running()
    site.config.version_policy.latest.num_versions = 1
    site.load()
    assert site.served == {1, 2}
    site.config.version_policy.specific.versions.append(2)
    site.load()
    assert site.served == {1, 2}


async def test_one_that_does_not_load_is_back_at_once() -> None:
    site = await Site.open()
    site.drop(1)
    site.broken.add(2)
    site.drop(2)

    assert phase(site) == Phase.ROLLED_BACK
    assert site.asked(10) == {1: 10}
    assert (
        site.chronicle.book.of("m").refused[2].reason
        == "rolled back: it did not load: no such file"
    )


async def test_a_crash_is_back_at_once() -> None:
    site = await running()
    site.executor(2).is_broken = True
    site.rollouts.look()

    assert phase(site) == Phase.ROLLED_BACK
    assert site.asked(10) == {1: 10}


async def test_a_newer_one_waits_for_its_turn() -> None:
    site = await running()
    site.drop(3)
    assert site.served == {1, 2}
    assert site.plan is not None
    assert site.plan.withheld == {3: "waits for the roll-out of version 2"}

    site.desk.change_rollout("m", "abort", {})
    assert site.served == {1, 3}
    assert site.chronicle.book.of("m").running is not None


async def test_what_is_removed_leaves_the_other_one() -> None:
    for gone, end in ((1, "promoted"), (2, "aborted")):
        site = await running()
        site.remove(gone)

        assert events(site) == ["adopted", "started", "began", end]
        assert site.served == {3 - gone}
        assert site.asked(10) == {3 - gone: 10}


async def test_files_that_change_begin_anew() -> None:
    site = await running()
    site.drop(2, stamp=2)

    assert events(site) == ["adopted", "started", "began", "aborted", "started"]


async def test_the_gate_is_asked_before_any_request_gets_there() -> None:
    rulings: list[str | None] = [None, None, "its answers are worse"]
    site = await Site.open(gate=lambda _key, _version: rulings.pop(0))
    site.drop(1)
    site.drop(2)
    for _ in range(2):
        site.rollouts.look()
        assert site.asked(10) == {1: 10}
        assert phase(site) == Phase.WAITING
    site.rollouts.look()

    refused = site.chronicle.book.of("m").refused
    assert refused[2].reason == "rolled back: its gate: its answers are worse"
    assert site.served == {1}


async def test_two_of_one_model_are_refused() -> None:
    site = await running()
    with pytest.raises(InvalidRequest, match="version 2 of model 'm' is being rolled out"):
        site.desk.change_rollout("m", "start", {})


async def test_without_a_policy_nothing_starts_but_by_hand() -> None:
    site = await Site.open(policy=None)
    site.drop(1)
    site.drop(2)
    assert (site.served, events(site)) == ({2}, [])

    site.desk.change_rollout("m", "start", {"policy": POLICY.table}, "somebody")
    assert site.served == {1, 2}
    assert site.asked(10) == {1: 10}
    site.rollouts.look()
    site.passes(0.5, failing=[2])
    assert site.served == {1}
    site.drop(3)
    assert site.served == {3}


async def test_a_split_and_a_roll_out_exclude_each_other() -> None:
    site = await Site.open()
    site.traffic = parse_traffic("[split]\n1 = 50\n2 = 50")
    site.drop(1, 2)
    assert events(site) == []
    with pytest.raises(InvalidRequest, match="the requests of model 'm' are split"):
        site.desk.change_rollout("m", "start", {})
    with pytest.raises(InvalidConfig, match=r"\[split\] and \[rollout\] both say"):
        parse_traffic("[split]\n1 = 100\n[rollout]\nsteps = [100]")


async def test_commands_that_there_are_not_are_named() -> None:
    site = await running()
    with pytest.raises(InvalidRequest, match="no command 'promot'; did you mean 'promote'"):
        site.desk.change_rollout("m", "promot", {})
    with pytest.raises(InvalidRequest, match="no field 'verson'; did you mean 'version'"):
        site.desk.change_rollout("m", "start", {"verson": 2})
    site.desk.change_rollout("m", "abort", {})
    with pytest.raises(NotFound, match="no version of model 'm' is being rolled out"):
        site.desk.change_rollout("m", "pause", {})
    with pytest.raises(NotFound, match="version 9 is not in the folder of model 'm'"):
        site.desk.change_rollout("m", "start", {"version": 9})


async def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    first = await running(FileJournal(tmp_path))
    first.passes(5)
    await first.rollouts.close()

    second = await Site.open(FileJournal(tmp_path))
    second.drop(1, 2)
    rollout = second.chronicle.book.of("m").running
    assert rollout is not None
    assert (rollout.phase, rollout.step) == (Phase.RUNNING, 1)
    second.passes(5)
    assert phase(second) == Phase.PROMOTED
    await second.rollouts.close()

    third = await Site.open(FileJournal(tmp_path))
    third.drop(1, 2)
    assert (third.usual(), events(third)) == (2, events(second))
    await third.rollouts.close()


async def test_what_was_taken_back_stays_so_after_a_restart(tmp_path: Path) -> None:
    first = await running(FileJournal(tmp_path))
    first.passes(0.5, failing=[2])
    await first.rollouts.close()

    second = await Site.open(FileJournal(tmp_path))
    second.drop(1, 2)
    assert (second.served, phase(second)) == ({1}, Phase.ROLLED_BACK)
    await second.rollouts.close()


async def test_one_server_decides_and_the_others_follow(tmp_path: Path) -> None:
    first = await Site.open(FileJournal(tmp_path))
    second = await Site.open(FileJournal(tmp_path))
    first.drop(1)
    await heard(second, "adopted")
    second.drop(1)
    second.drop(2)
    assert second.served == {1}
    first.drop(2)
    first.rollouts.look()
    await heard(second, "began")
    assert second.served == {1, 2}
    assert second.asked(50) == {1: 40, 2: 10}
    second.passes(0.5, failing=[2])
    assert phase(second) == Phase.RUNNING

    second.desk.change_rollout("m", "abort", {"reason": "seen elsewhere"})
    await heard(first, "aborted")
    assert first.served == second.served == {1}
    await first.rollouts.close()
    await second.rollouts.close()


async def heard(site: Site, event: str) -> None:
    async with asyncio.timeout(patience()):
        while event not in events(site):
            await asyncio.sleep(0.01)


async def test_a_model_that_was_unloaded_stays_so_whatever_others_decide(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    site = await running(journal)
    for version in site.served:
        site.registry.withdraw("m", version)
    await site.rollouts.close()
    site.rollouts.on_others("m")

    assert site.served == set()
    assert journal_lines(tmp_path)[-1:] == [Event.BEGAN], "not how far it is, for ever"


def journal_lines(folder: Path) -> list[object]:
    journal = FileJournal(folder)
    try:
        return [each["event"] for each in journal.read()]
    finally:
        journal.close()


def test_numbers_of_old_records_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MOST_SEEN", 2)
    known = Book()
    record = {"model": "m", "event": Event.ADOPTED, "version": 1}
    for number in "abc":
        assert known.apply({**record, "n": number})

    assert not known.apply({**record, "n": "c"})
    assert len(known._seen) == 2


def test_the_furthest_quantile_is_looked_at_too() -> None:
    look = Look((guard_of("p9999", 0),))
    stable = {"latency": [float(each) for each in range(10_000)]}
    look.window({}, stable, 1.0)
    seen = look.window({"latency": [20_000.0]}, {}, 1.0).seen

    assert seen["p9999"][0] == Counted(1, 1)


async def test_what_alone_is_left_and_was_taken_back_does_not_serve() -> None:
    site = await running()
    site.passes(0.5, failing=[2])
    with pytest.raises(LoadFailed, match="no version of model 'm' may serve: version 2: rolled ba"):
        site.remove(1)


async def test_new_files_that_do_not_load_are_not_taken_for_the_old_ones() -> None:
    site = await running()
    site.broken.add(2)
    site.drop(2, stamp=2)

    assert phase(site) == Phase.ROLLED_BACK
    assert site.asked(10) == {1: 10}


async def test_a_candidate_whose_files_cannot_be_read_for_a_moment_is_waited_for() -> None:
    site = await Site.open()
    site.drop(1)
    site.unreadable = {2}
    site.drop(2)
    site.rollouts.look()
    assert (phase(site), site.asked(10)) == (Phase.WAITING, {1: 10})

    site.unreadable = set()
    site.load()
    site.rollouts.look()
    assert phase(site) == Phase.RUNNING

"""The watcher: a folder is used once it is still, and none that is still waits for others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import patience

from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.plan import Action, Load, Unload, plan
from trivet.server.repository.scan import Snapshot, scan
from trivet.server.repository.watcher import Settling, Watcher

NOTHING = Snapshot({}, {})


def snapshot(**sizes: int) -> Snapshot:
    return Snapshot(
        {n: ModelFolder(n, Path(n), (), {1: (("f", size, 0, 0),)}) for n, size in sizes.items()}, {}
    )


def test_a_new_folder_is_taken_when_it_has_been_still() -> None:
    settling = Settling(0.25)
    assert settling.settled(snapshot(m=1), NOTHING, 10.0) == (NOTHING, False)
    assert settling.settled(snapshot(m=1), NOTHING, 10.2) == (NOTHING, False)
    assert settling.settled(snapshot(m=1), NOTHING, 10.25) == (snapshot(m=1), True)


def test_a_folder_that_grows_starts_its_wait_again() -> None:
    settling = Settling(0.25)
    for moment, size in ((0.0, 1), (0.2, 2), (0.4, 3)):
        assert settling.settled(snapshot(m=size), NOTHING, moment) == (NOTHING, False)
    assert settling.settled(snapshot(m=3), NOTHING, 0.7) == (snapshot(m=3), True)


def test_a_folder_that_changes_keeps_its_old_state_until_then() -> None:
    settling = Settling(0.25)
    applied = snapshot(m=1)
    assert settling.settled(snapshot(m=2), applied, 0.0) == (applied, False)
    assert settling.settled(snapshot(m=2), applied, 0.3) == (snapshot(m=2), True)


def test_a_still_folder_does_not_wait_for_a_changing_one() -> None:
    settling = Settling(0.25)
    settling.settled(snapshot(a=1, b=1), NOTHING, 0.0)
    assert settling.settled(snapshot(a=1, b=2), NOTHING, 0.3) == (snapshot(a=1), False)


def test_a_removed_folder_goes_at_once() -> None:
    assert Settling(0.25).settled(NOTHING, snapshot(m=1), 0.0) == (NOTHING, True)


def test_what_changes_back_is_not_touched() -> None:
    settling = Settling(0.25)
    settling.settled(snapshot(m=2), snapshot(m=1), 0.0)
    assert settling.settled(snapshot(m=1), snapshot(m=1), 0.1) == (snapshot(m=1), True)


def test_a_folder_that_can_be_read_again_is_never_taken_for_removed() -> None:
    """Until it has been still its problem stands; then it is loaded, and never unloaded."""
    settling = Settling(0.25)
    applied = Snapshot({}, {"m": "it cannot be read"})
    assert settling.settled(snapshot(m=1), applied, 0.0) == (applied, False)
    target, _ = settling.settled(snapshot(m=1), applied, 0.3)
    assert target == snapshot(m=1)
    assert [type(action) for action in plan(target, applied)] == [Load]


class Watched:
    """A real folder under a real watcher."""

    def __init__(self, root: Path, mode: str) -> None:
        self.root = root
        self.actions: asyncio.Queue[Action] = asyncio.Queue()
        poll_secs = 0.1 if mode == "poll" else 3600.0
        self.watcher = Watcher(
            [root], mode, poll_secs=poll_secs, applied=scan([root]), apply=self._apply, settle_s=0.1
        )

    def _apply(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self.actions.put_nowait(action)

    async def next(self) -> Action:
        return await asyncio.wait_for(self.actions.get(), patience())


@pytest.fixture(params=["watch", "poll"])
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    (tmp_path / "old" / "1").mkdir(parents=True)
    made = Watched(tmp_path, request.param)
    await made.watcher.start()
    yield made
    await made.watcher.close()


async def test_versions_and_models_are_followed(watched: Watched) -> None:
    (watched.root / "old" / "2").mkdir()
    action = await watched.next()
    assert isinstance(action, Load)
    assert sorted(action.folder.versions) == [1, 2]
    (watched.root / "old").rename(watched.root / "new")
    renamed = {type(each): each.key for each in (await watched.next(), await watched.next())}
    assert renamed == {Unload: "old", Load: "new"}


class Hands:
    """The clock of a watcher, and how often it has looked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.num_looks = 0

    def scan(self, roots: list[Path], **options: Any) -> Snapshot:
        self.num_looks += 1
        return scan(roots, **options)

    async def looked(self, watcher: Watcher) -> None:
        """Returns when a look that began after now has been acted on, and no event is left."""
        before = self.num_looks
        async with asyncio.timeout(patience()):
            while self.num_looks < before + 3:
                watcher._changed.set()
                await asyncio.sleep(0.001)
            while watcher._changed.is_set():
                await asyncio.sleep(0.001)


async def test_what_is_owed_is_tried_once_a_poll_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often file events make the watcher look."""
    hands = Hands()
    monkeypatch.setattr("trivet.server.repository.watcher.scan", hands.scan)
    (tmp_path / "m" / "1").mkdir(parents=True)
    loads: asyncio.Queue[tuple[Action, ...]] = asyncio.Queue()
    watcher = Watcher(
        [tmp_path],
        "watch",
        poll_secs=15.0,
        applied=scan([tmp_path]),
        apply=loads.put_nowait,
        owed=lambda: ["m"],
        monotonic=lambda: hands.now_s,
    )
    await watcher.start()
    await hands.looked(watcher)
    assert loads.empty()
    hands.now_s = 15.0
    await hands.looked(watcher)
    (load,) = loads.get_nowait()
    assert load.key == "m"
    hands.now_s = 29.95
    await hands.looked(watcher)
    assert loads.empty()
    hands.now_s = 30.0
    # Without an event, and not a whole period after the last one.
    await asyncio.wait_for(loads.get(), patience())
    await watcher.close()


async def test_file_events_that_do_not_come_are_told_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[Path] = []

    def refuse(*roots: Path, **_: object) -> None:
        tries.extend(roots)
        raise OSError("the limit of file watches is reached")

    monkeypatch.setattr("trivet.server.repository.watcher.awatch", refuse)
    watcher = Watcher(
        [tmp_path], "watch", poll_secs=0.01, applied=NOTHING, apply=lambda actions: None
    )
    await watcher.start()
    while len(tries) < 5:
        await asyncio.sleep(0.01)
    await watcher.close()
    assert caplog.text.count("file events are not available (the limit of file watches") == 1


async def test_a_repository_that_vanishes_and_returns_is_followed_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    away = watched.root.rename(watched.root.parent / "away")
    while "cannot be read" not in caplog.text:
        watched.watcher._changed.set()
        await asyncio.sleep(0.01)
    assert watched.actions.empty()
    (away / "old" / "2").mkdir()
    away.rename(watched.root)
    while watched.actions.empty():
        watched.watcher._changed.set()
        await asyncio.sleep(0.01)
    assert isinstance(await watched.next(), Load)

"""Who waits for memory gets it, or is told that he never will: nobody waits for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from fakes import CountingSink
from patience import patience
from sleeping_room import SleepyRoom

from trivet.backends.api import CancelToken, LoadFailed, ModelNotReady
from trivet.server.models.sleeping.resident import Rest

Make = Callable[..., SleepyRoom]


@pytest.fixture
async def make_room() -> AsyncIterator[Make]:
    rooms: list[SleepyRoom] = []

    def make(budget: int | None = None) -> SleepyRoom:
        rooms.append(SleepyRoom(budget))
        return rooms[-1]

    yield make
    for room in rooms:
        await room.close()


async def ended(*sinks: CountingSink) -> None:
    for sink in sinks:
        await sink.wait()


async def test_who_asks_for_a_wake_and_leaves_does_not_stop_it(make_room: Make) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    asks = asyncio.create_task(room.residency.wake([model], ["weights", "kv_cache"]))
    await room.until(lambda: room.opener.num_opening == 2)
    asks.cancel()
    sink = room.ask("m")
    await asyncio.wait([asks])
    room.opener.gate.set()
    await ended(sink)
    assert sink.error is None


async def test_one_that_does_not_load_leaves_its_room_to_who_waits(make_room: Make) -> None:
    """Nothing else has been loaded that would look."""
    room = make_room(budget=10)
    room.opener.gate.clear()
    first = asyncio.create_task(room.load("first"))
    await room.until(lambda: room.opener.num_opening == 1)
    second = asyncio.create_task(room.load("second"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    room.opener.gate.set()
    async with asyncio.timeout(patience()):
        await second


async def test_of_two_that_are_pinned_and_do_not_fit_together_one_is_refused(
    make_room: Make,
) -> None:
    """It would wait for ever, and all others behind it."""
    room = make_room(budget=15)
    loads = [room.load(name, "memory_pinned=true") for name in ("a", "b")]
    async with asyncio.timeout(patience()):
        ends = await asyncio.gather(*loads, return_exceptions=True)
    assert isinstance(ends[1], LoadFailed)
    assert "'a' 0.0 MiB" in ends[1].message
    with pytest.raises(LoadFailed, match="beside what is pinned"):
        await room.load("a", "memory_pinned=true")


async def test_one_that_sleeps_and_has_no_room_beside_what_was_pinned_later_is_refused(
    make_room: Make,
) -> None:
    room = make_room(budget=15)
    await room.load("sleeps")
    await room.load("pinned", "memory_pinned=true")
    assert room.rest("sleeps") is Rest.ASLEEP
    sink = room.ask("sleeps")
    await ended(sink)
    assert isinstance(sink.error, ModelNotReady)
    assert "'pinned'" not in sink.error.message
    room.opener.sizes["small"] = 5
    async with asyncio.timeout(patience()):
        await room.load("small")


async def test_who_comes_just_when_a_wake_is_given_up_is_answered(make_room: Make) -> None:
    room = make_room(budget=10)
    await room.load("m")
    room.opener.is_held = True
    await room.load("busy")
    room.opener.is_held = False
    busy, cancel = room.ask("busy"), CancelToken()
    await room.until(lambda: bool(room.opener.instance("busy").batches))
    gone = room.ask("m", cancel=cancel)
    await room.until(lambda: room.rest("m") is Rest.WAITING)
    cancel.cancel()
    await ended(gone)
    asyncio.get_running_loop().call_soon(room.residency._settle)
    comes: list[CountingSink] = []
    asyncio.get_running_loop().call_soon(lambda: comes.append(room.ask("m")))
    await room.until(lambda: bool(comes))
    room.opener.instance("busy").release()
    await ended(busy, *comes)
    assert comes[0].error is None

"""Models that sleep serve: each request has exactly one end, whatever becomes of the waking."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fakes import CountingSink
from patience import fires_after, patience
from sleeping_room import SleepyRoom

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    DeadlineExceeded,
    LoadFailed,
    ModelNotReady,
    QueueFull,
    Unavailable,
)
from trivet.server.models.sleeping.policy import LEAST_TURN_S
from trivet.server.models.sleeping.resident import TAGS, Rest
from trivet.server.scheduling.pool import InstancePool

Make = Callable[..., SleepyRoom]
NAMES = [f"m{number}" for number in range(20)]


@pytest.fixture
async def make_room() -> AsyncIterator[Make]:
    rooms: list[SleepyRoom] = []

    def make(budget: int | None = None, idle_s: float = 0.0) -> SleepyRoom:
        rooms.append(SleepyRoom(budget, idle_s))
        return rooms[-1]

    yield make
    for room in rooms:
        await room.close()


async def ended(*sinks: CountingSink) -> None:
    for sink in sinks:
        await sink.wait()


# -- asleep and awake --------------------------------------------------------------------------


async def test_a_model_that_is_idle_gives_its_instances_back_and_wakes_for_a_request(
    make_room: Make,
) -> None:
    room = make_room(idle_s=5)
    await room.load("m")
    await ended(room.ask("m"))
    await room.until(lambda: room.residency.rest_of(room.models["m"]).num_taken == 1)  # type: ignore[union-attr] # it is one
    room.now_s += 6
    await room.until(lambda: room.rest("m") is Rest.ASLEEP)
    assert room.opener.opened[0][1].is_closed
    assert room.models["m"].executor.is_ready(), "it serves"
    sink = room.ask("m", value=3.0)
    await ended(sink)
    assert sink.error is None
    assert sink.responses[0].outputs[0].numpy().tolist() == [[6.0, 6.0]]
    assert room.rest("m") is Rest.AWAKE


async def test_nothing_sleeps_while_it_computes_or_is_pinned_or_is_being_rolled_out(
    make_room: Make,
) -> None:
    room = make_room(idle_s=5)
    await room.load("idle")
    await room.load("pinned", "memory_pinned=true")
    await room.load("never", "idle_unload_s=0")
    await room.load("rolled")
    room.held.add("rolled")
    room.opener.is_held = True
    await room.load("busy")
    sink = room.ask("busy")
    await room.until(lambda: bool(room.opener.instance("busy").batches))
    room.now_s += 60
    await room.until(lambda: room.rest("idle") is Rest.ASLEEP)
    assert room.at_rest(Rest.AWAKE) == ["pinned", "never", "rolled", "busy"]
    room.opener.instance("busy").release()
    await ended(sink)
    assert sink.error is None


async def test_falling_asleep_ends_what_has_begun_and_holds_what_comes(make_room: Make) -> None:
    room = make_room()
    room.opener.is_held = True
    await room.load("m")
    first = room.ask("m")
    await room.until(lambda: bool(room.opener.instance("m").batches))
    falling = asyncio.create_task(room.residency.sleep([room.models["m"]]))
    await room.until(lambda: room.rest("m") is Rest.FALLING)
    second = room.ask("m")
    await asyncio.sleep(0)
    old = room.opener.instance("m")
    assert not old.is_closed, "it computes"
    room.opener.is_held = False
    old.release()
    await falling
    await ended(first, second)
    assert (first.error, second.error) == (None, None)
    assert old.is_closed
    assert len(old.batches) == 1


async def test_who_puts_a_model_to_sleep_that_falls_asleep_already_waits_for_it(
    make_room: Make,
) -> None:
    room = make_room()
    room.opener.is_held = True
    model = await room.load("m")
    sink = room.ask("m")
    await room.until(lambda: bool(room.opener.instance("m").batches))
    first = asyncio.create_task(room.residency.sleep([model]))
    await room.until(lambda: room.rest("m") is Rest.FALLING)
    second = asyncio.create_task(room.residency.sleep([model]))
    await asyncio.sleep(0)
    assert not second.done(), "it computes"
    room.opener.instance("m").release()
    await second
    assert room.rest("m") is Rest.ASLEEP
    await first
    await ended(sink)


async def test_a_fault_while_a_model_falls_asleep_costs_what_waits_nothing(
    make_room: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = make_room()
    room.opener.is_held = True
    model = await room.load("m")
    first = room.ask("m")
    await room.until(lambda: bool(room.opener.instance("m").batches))
    waiting = room.ask("m")
    old, retire = room.opener.instance("m"), InstancePool.retire

    async def fail(pool: InstancePool, timeout_s: float) -> None:
        await retire(pool, timeout_s)
        raise ZeroDivisionError("swordfish")

    monkeypatch.setattr(InstancePool, "retire", fail)
    falling = asyncio.create_task(room.residency.sleep([model]))
    await room.until(lambda: room.rest("m") is Rest.FALLING)
    room.opener.is_held = False
    old.release()
    await falling
    await ended(first, waiting)
    assert (first.error, waiting.error) == (None, None)
    assert room.rest("m") is Rest.AWAKE
    assert "ZeroDivisionError: swordfish" in caplog.text


async def test_what_a_version_takes_is_said_of_the_one_that_was_loaded_last(
    make_room: Make,
) -> None:
    room = make_room()
    old = await room.load("m")
    assert old.statistics.cpu_memory_bytes == 10
    await room.asleep("m")
    assert old.statistics.cpu_memory_bytes == 0
    room.opener.sizes["m"] = 20
    new = await room.load("m")
    assert new.statistics is old.statistics
    await room.residency.wake([old], TAGS)
    assert new.statistics.cpu_memory_bytes == 20
    await room.residency.sleep([old])
    assert new.statistics.cpu_memory_bytes == 20, "the other one takes it"
    await old.executor.close()
    room.residency.ended(old)
    await room.asleep("m")
    assert new.statistics.cpu_memory_bytes == 0


async def test_what_is_woken_by_hand_wakes_with_the_last_of_its_tags(make_room: Make) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    await room.residency.wake([model], ["weights"])
    assert room.rest("m") is Rest.ASLEEP
    await room.residency.wake([model], ["kv_cache"])
    assert room.rest("m") is Rest.AWAKE


# -- requests that wait ------------------------------------------------------------------------


async def test_many_requests_wake_a_model_once_and_all_are_answered(make_room: Make) -> None:
    room = make_room()
    await room.load("m")
    await room.asleep("m")
    sinks = [room.ask("m") for _ in range(50)]
    await ended(*sinks)
    assert [sink.error for sink in sinks] == [None] * 50
    assert room.opener.num_opening == 2


async def test_no_more_wait_than_the_queue_takes(make_room: Make) -> None:
    room = make_room()
    await room.load("m", queue_size=3)
    await room.asleep("m")
    room.opener.gate.clear()
    sinks = [room.ask("m") for _ in range(4)]
    await ended(sinks[3])
    assert isinstance(sinks[3].error, QueueFull)
    room.opener.gate.set()
    await ended(*sinks[:3])
    assert [sink.error for sink in sinks[:3]] == [None] * 3


async def test_a_client_that_leaves_while_the_model_wakes_is_not_computed(make_room: Make) -> None:
    room = make_room()
    await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    cancel = CancelToken()
    gone, stays = room.ask("m", cancel=cancel), room.ask("m")
    cancel.cancel()
    await ended(gone)
    assert isinstance(gone.error, Cancelled)
    room.opener.gate.set()
    await ended(stays)
    assert stays.error is None
    assert sum(map(len, room.opener.instance("m").batches)) == 1


async def test_a_deadline_passes_while_the_model_wakes(make_room: Make) -> None:
    room = make_room()
    await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    late = room.ask("m", deadline=time.monotonic() + fires_after(0.02))
    await ended(late)
    assert isinstance(late.error, DeadlineExceeded)
    room.opener.gate.set()
    await room.until(lambda: room.rest("m") is Rest.AWAKE)
    assert room.opener.instance("m").batches == []


# -- waking that fails -------------------------------------------------------------------------


async def test_a_model_that_does_not_wake_fails_all_that_wait_and_says_so(make_room: Make) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    room.opener.error = LoadFailed("swordfish")
    sinks = [room.ask("m") for _ in range(3)]
    await ended(*sinks)
    for sink in sinks:
        assert isinstance(sink.error, ModelNotReady)
        assert "sleeps and does not wake: swordfish" in sink.error.message
    assert not model.executor.is_ready()
    assert "swordfish" in model.executor.trouble()  # type: ignore[attr-defined] # it is supervised
    again = room.ask("m")
    await ended(again)
    assert isinstance(again.error, ModelNotReady)
    assert room.opener.num_opening == 2, "it is not tried for each request"


async def test_a_fault_of_ours_while_a_model_wakes_ends_what_waits_and_it_is_tried_again(
    make_room: Make, caplog: pytest.LogCaptureFixture
) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    room.opener.error = ZeroDivisionError("swordfish")
    sink = room.ask("m")
    await ended(sink)
    assert isinstance(sink.error, ModelNotReady)
    assert "it failed unexpectedly; the server log has the details" in sink.error.message
    assert "ZeroDivisionError: swordfish" in caplog.text
    room.opener.error = None
    await room.residency.wake([model], ["weights", "kv_cache"])
    again = room.ask("m")
    await ended(again)
    assert again.error is None


async def test_a_model_that_did_not_wake_is_tried_again_and_serves(make_room: Make) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    room.opener.error = LoadFailed("swordfish")
    await ended(room.ask("m"))
    room.opener.error = None
    with pytest.raises(ModelNotReady, match="swordfish"):
        await room.residency.wake([model], ["weights"])
    await room.residency.wake([model], ["weights", "kv_cache"])
    sink = room.ask("m")
    await ended(sink)
    assert sink.error is None
    assert model.executor.is_ready()


async def test_a_model_whose_files_have_changed_meanwhile_does_not_wake(
    make_room: Make, tmp_path: Path
) -> None:
    room = make_room()
    await room.load("m", files=(("weights.bin", 1, 1, 1),))
    await room.asleep("m")
    sink = room.ask("m")
    await ended(sink)
    assert sink.error is not None
    assert "its file 'weights.bin' has changed or gone since it was loaded" in sink.error.message


# -- the end of a model ------------------------------------------------------------------------


async def test_a_model_that_is_unloaded_while_it_wakes_answers_what_waits(make_room: Make) -> None:
    room = make_room()
    await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    sink = room.ask("m")
    unloading = asyncio.create_task(room.unload("m"))
    await room.until(lambda: room.opener.num_opening == 2)
    late = room.ask("m")
    await ended(late)
    assert isinstance(late.error, Unavailable), "it takes no new ones"
    room.opener.gate.set()
    await unloading
    await ended(sink)
    assert sink.error is None
    assert room.opener.instance("m").is_closed


async def test_an_instance_that_comes_after_the_models_end_is_closed(make_room: Make) -> None:
    room = make_room()
    await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    cancel = CancelToken()
    sink = room.ask("m", cancel=cancel)
    await room.until(lambda: room.opener.num_opening == 2)
    cancel.cancel()
    await ended(sink)
    await room.unload("m")
    room.opener.gate.set()
    await room.until(lambda: len(room.opener.opened) == 2 and room.opener.opened[1][1].is_closed)


async def test_a_server_that_stops_while_a_model_wakes_ends_what_waits(make_room: Make) -> None:
    room = make_room()
    model = await room.load("m")
    await room.asleep("m")
    room.opener.gate.clear()
    sink = room.ask("m")
    await room.until(lambda: room.opener.num_opening == 2)
    room.residency.close()
    await model.executor.close()
    await ended(sink)
    assert isinstance(sink.error, Unavailable)


# -- a budget ----------------------------------------------------------------------------------


async def test_twenty_models_in_room_for_five_serve_and_none_is_refused(make_room: Make) -> None:
    room = make_room(budget=50)
    for name in NAMES:
        await room.load(name)
    sinks = [room.ask(name) for name in NAMES for _ in range(3)]
    async with asyncio.timeout(patience()):
        while not all(sink.ends for sink in sinks):
            room.now_s += LEAST_TURN_S
            await asyncio.sleep(0.01)
    assert [sink.error for sink in sinks] == [None] * len(sinks)
    assert room.opener.most_bytes <= 50
    assert len(room.at_rest(Rest.AWAKE)) <= 5


async def test_those_that_were_not_used_for_longest_sleep_first(make_room: Make) -> None:
    room = make_room(budget=30)
    for name in ("a", "b", "c"):
        await room.load(name)
    for name in ("a", "c", "b"):
        room.now_s += 1
        await ended(room.ask(name))
        resident = room.residency.rest_of(room.models[name])
        await room.until(lambda each=resident: each.num_taken == 1)  # type: ignore[misc] # bound now
    await room.load("d")
    assert room.at_rest(Rest.ASLEEP) == ["a"]
    await room.load("e")
    assert room.at_rest(Rest.ASLEEP) == ["a", "c"]


async def test_a_request_waits_while_all_memory_computes_and_gives_up_at_its_deadline(
    make_room: Make,
) -> None:
    room = make_room(budget=10)
    await room.load("waits")
    room.opener.is_held = True
    await room.load("computes")
    assert room.rest("waits") is Rest.ASLEEP
    sink = room.ask("computes")
    await room.until(lambda: bool(room.opener.instance("computes").batches))
    late = room.ask("waits", deadline=time.monotonic() + fires_after(0.05))
    await ended(late)
    assert isinstance(late.error, DeadlineExceeded)
    # Nobody waits any more: nothing sleeps for it.
    await room.until(lambda: room.rest("waits") is Rest.ASLEEP)
    assert room.rest("computes") is Rest.AWAKE
    room.opener.instance("computes").release()
    await ended(sink)
    assert sink.error is None


async def test_one_that_is_asked_all_the_time_makes_way_after_its_turn(make_room: Make) -> None:
    room = make_room(budget=10)
    await room.load("waits")
    room.opener.is_held = True
    await room.load("busy")
    first = room.ask("busy")
    await room.until(lambda: bool(room.opener.instance("busy").batches))
    waits = room.ask("waits")
    second = room.ask("busy")
    room.now_s += LEAST_TURN_S
    await room.until(lambda: room.rest("busy") is Rest.FALLING)
    room.opener.is_held = False
    room.opener.instance("busy").release()
    await ended(first, waits)
    room.now_s += LEAST_TURN_S
    await ended(second)
    assert [sink.error for sink in (first, second, waits)] == [None] * 3
    assert room.opener.most_bytes == 10


async def test_what_a_model_asks_while_it_computes_wakes_though_there_is_no_room(
    make_room: Make,
) -> None:
    """It frees nothing before it has its answer."""
    room = make_room(budget=10)
    await room.load("asked")
    room.opener.is_held = True
    await room.load("asks")
    asks = room.ask("asks")
    await room.until(lambda: bool(room.opener.instance("asks").batches))
    room.opener.is_held = False
    asked = room.ask("asked", callers=("asks",))
    await ended(asked)
    assert asked.error is None
    room.opener.instance("asks").release()
    await ended(asks)
    await room.until(lambda: len(room.at_rest(Rest.AWAKE)) == 1)


async def test_a_model_that_takes_more_than_its_files_say_makes_others_sleep(
    make_room: Make,
) -> None:
    room = make_room(budget=30)
    await room.load("a")
    await room.load("b")
    room.opener.sizes["c"], room.opener.estimates["c"] = 15, 10
    await room.load("c")
    await room.until(lambda: room.at_rest(Rest.ASLEEP) == ["a"])


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_model_larger_than_the_budget_is_refused_and_leaves_nothing_open(
    make_room: Make, *, is_known: bool
) -> None:
    room = make_room(budget=30)
    await room.load("small")
    room.opener.sizes["large"] = 40
    room.opener.estimates["large"] = 40 if is_known else 20
    with pytest.raises(LoadFailed, match="model 'large' takes 0"):
        await room.load("large")
    assert [name for name, each in room.opener.opened if not each.is_closed] == ["small"]
    assert room.opener.num_opening == (1 if is_known else 2)
    await room.load("other")

"""The alarm: it calls once, at the earliest of its times."""

import asyncio
import time

from trivet.server.scheduling.alarm import Alarm

MS = 1_000_000
FAR = 3_600_000 * MS


def now_ns() -> int:
    return time.monotonic_ns()


async def test_it_calls_once_at_the_earliest_of_its_times() -> None:
    called: list[int] = []
    rung = asyncio.Event()

    def call() -> None:
        called.append(now_ns())
        rung.set()

    alarm = Alarm(asyncio.get_running_loop(), call)
    due_ns = now_ns() + 5 * MS
    alarm.by(now_ns() + FAR)
    alarm.by(due_ns)
    alarm.by(now_ns() + FAR)
    assert alarm.is_set
    await rung.wait()
    assert not alarm.is_set
    assert called[0] >= due_ns - MS  # the loop's clock is a bit coarser
    alarm.by(0)  # long past: as soon as the loop comes to it
    rung.clear()
    await rung.wait()
    assert len(called) == 2


async def test_another_time_replaces_the_one_before_and_it_can_be_cancelled() -> None:
    rung = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop(), rung.set)
    alarm.at(0)
    alarm.at(now_ns() + FAR)
    await asyncio.sleep(0.01)
    assert not rung.is_set()
    alarm.cancel()
    assert not alarm.is_set
    alarm.cancel()
    alarm.at(0)
    await rung.wait()

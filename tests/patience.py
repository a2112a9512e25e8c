"""How long a test waits before it calls something hung: every bound of time in the tests is made
here, scaled by how busy the machine is.

A wait costs nothing when the test passes, so bounds are generous. What must be *fast* is not shown
by seconds, for they are the machine's: compare with a control in the same test, count steps, assert
which event came first, or give the clock.
"""

import os
import queue
import threading
import time
from functools import cache
from pathlib import Path

HANG_S = 60.0
"""Longer than anything that works takes on a quiet machine."""
MOST = 30.0
"""However busy the machine is: a hang is to end before whoever started the tests gives up."""
NUM_ROUNDS = 10
NUM_ADDITIONS = 200_000
NUM_HAND_OFFS = 200
REFERENCE_S = 0.1
"""What the rounds take on an idle core that is two years old; long enough to lose the core a few
times where others want it too."""


def patience(seconds: float = HANG_S) -> float:
    """A bound of time for this machine as busy as it is now. Without a number: one that only a hang
    reaches."""
    return seconds * min(MOST, max(1.0, slowness(), crowding()))


def fires_after(seconds: float) -> float:
    """A bound that the test wants to pass: nothing that is to succeed hangs on it, and a slow
    machine cannot keep it from firing."""
    return seconds


@cache
def slowness() -> float:
    """How many times longer than on an idle core a known piece of work takes, once a process: each
    worker that runs tests measures what it is given."""
    started_s = time.perf_counter()
    for _ in range(NUM_ROUNDS):
        add_up()
        hand_over()
    return (time.perf_counter() - started_s) / REFERENCE_S


def add_up() -> int:
    total = 0
    for number in range(NUM_ADDITIONS):
        total += number & 7
    return total


def hand_over() -> None:
    """To another thread and back, as every request is: what the scheduler's queue costs."""
    there: queue.SimpleQueue[int] = queue.SimpleQueue()
    back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def echo() -> None:
        while number := there.get():
            back.put(number)

    thread = threading.Thread(target=echo)
    thread.start()
    for number in range(1, NUM_HAND_OFFS):
        there.put(number)
        back.get()
    there.put(0)
    thread.join()


def crowding() -> float:
    """How many want each core. Load that came after the measurement shows here: at once in the
    count of those that run now, for the next minute in the load average."""
    wanting = os.getloadavg()[0]
    now = Path("/proc/loadavg")
    if now.exists():
        wanting = max(wanting, float(now.read_text().split()[3].split("/")[0]))
    return wanting / (os.cpu_count() or 1)

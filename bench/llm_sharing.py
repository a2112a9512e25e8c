"""Language models that share their cores: beside a thread that is always busy, and with another
model of the same server. Ratios of one run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.figures import Figures, Measure, Row, alternate
from bench.llm import MODEL
from trivet.backends.llm.process.process import SHORT_WAITS

STREAMS = (1, 16)
BESIDE_A_THREAD, TOGETHER = 0.6, 0.9
_BUSY = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


class Side:
    """A process that generates when it is told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._read()

    def start(self, streams: int, seconds: float) -> None:
        """Generates from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{streams} {seconds}\n")
        self._process.stdin.flush()

    def rate(self) -> float:
        """Tokens a second, once it has ended."""
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("an engine ended")
        return line


def bench_llm_sharing(seconds: float, rounds: int) -> list[Row]:
    """Of the compiled step and of torch alone, at one stream and at many."""
    rows = []
    with ExitStack() as stack:
        native, other, torch = (stack.enter_context(_side(native=each)) for each in (1, 1, 0))
        for streams in STREAMS:
            for name, side in (("compiled", native), ("torch alone", torch)):
                sides: dict[str, Measure] = {
                    "alone": partial(_together, [side], streams, seconds),
                    "beside": partial(_beside, side, streams, seconds),
                }
                found = alternate(sides, rounds)
                cell = f"LLM, {name}, {streams} streams beside a busy thread, next to none"
                rows.append(_row(cell, found["beside"], found["alone"], BESIDE_A_THREAD))
            sides = {
                "alone": partial(_together, [native], streams, seconds),
                "both": partial(_together, [native, other], streams, seconds),
            }
            found = alternate(sides, rounds)
            cell = f"two LLMs together, {streams} streams each, next to one alone"
            rows.append(_row(cell, found["both"], found["alone"], TOGETHER))
    return rows


@contextmanager
def _side(*, native: int) -> Iterator[Side]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.llm_sharing_side", str(MODEL)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=SHORT_WAITS | os.environ | {"TRIVET_NATIVE": str(native)},
    )  # fmt: skip
    try:
        yield Side(process)
    finally:
        process.kill()
        process.wait()


def _together(sides: list[Side], streams: int, seconds: float) -> Figures:
    for side in sides:
        side.start(streams, seconds)
    return {"tokens_per_s": sum(side.rate() for side in sides)}


def _beside(side: Side, streams: int, seconds: float) -> Figures:
    """One busy thread to two cores, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))[::2]
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY % core]) for core in cores]
    try:
        return _together([side], streams, seconds)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _row(cell: str, ours: Figures, alone: Figures, bar: float) -> Row:
    return Row(cell, "tokens/s", ours["tokens_per_s"], alone["tokens_per_s"], bar)

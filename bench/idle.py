"""What a server takes that nobody asks: its start, its memory, the command's help, a scrape."""

import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from statistics import median

import psutil

from bench.cpu import tree_cpu_s
from bench.figures import Row
from bench.processes import HERE, Listener, environment_of, trivet

NUM_MODELS = 100
NUM_SCRAPES = 20
MOST_MB = 60.0
MOST_HELP_S = 0.15
MOST_START_S = 0.8
MOST_LINES, MOST_KB, MOST_SCRAPE_MS = 1500, 100.0, 5.0
_CONFIG = """
backend: "identity"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: 16 }
output { name: "OUT" data_type: TYPE_FP32 dims: 16 }
"""


def bench_idle(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001 - how often counts
    """Each next to the most that it may be, by CPU time where it is a time."""
    starts = [_start() for _ in range(rounds)]
    rows = [
        _row("help", "s", median(_help_s() for _ in range(5 * rounds)), MOST_HELP_S),
        _row("start/no-models", "s", median(cpu_s for cpu_s, _ in starts), MOST_START_S),
        _row("memory/no-models", "MB", median(pss_mb for _, pss_mb in starts), MOST_MB),
    ]
    return rows + _page(rounds)


def _row(cell: str, unit: str, ours: float, most: float) -> Row:
    return Row(
        cell, unit, ours, most, 0.0, is_difference=True, note="the bar is the most it may be"
    )


def _help_s() -> float:
    before = os.times()
    command = [sys.executable, "-m", "trivet", "--help"]
    subprocess.run(command, check=True, capture_output=True, cwd=HERE, env=environment_of(HERE))
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def _start() -> tuple[float, float]:
    """CPU time until a server without models is ready, in seconds, and its memory then, in MB."""
    with tempfile.TemporaryDirectory() as folder, trivet(Path(folder)) as server:
        used_s = tree_cpu_s(server.pid)
        processes = [psutil.Process(server.pid)]
        processes += processes[0].children(recursive=True)
        return used_s, sum(each.memory_full_info().pss for each in processes) / 1e6


def _page(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(NUM_MODELS):
            model = Path(folder) / f"model_{number:02}"
            (model / "1").mkdir(parents=True)
            (model / "config.pbtxt").write_text(_CONFIG)
        with trivet(Path(folder)) as server:
            text = _scrape(server)
            costs_ms = [_scrape_ms(server) for _ in range(rounds)]
    return [
        _row(f"metrics/{NUM_MODELS}-idle/lines", "lines", len(text.splitlines()), MOST_LINES),
        _row(f"metrics/{NUM_MODELS}-idle/size", "kB", len(text) / 1e3, MOST_KB),
        _row(f"metrics/{NUM_MODELS}-idle/scrape", "ms", median(costs_ms), MOST_SCRAPE_MS),
    ]


def _scrape(server: Listener) -> bytes:
    """A page as Prometheus asks for it."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{server.ports['metrics']}/metrics",
        headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        page: bytes = answer.read()
        return page


def _scrape_ms(server: Listener) -> float:
    before_s = tree_cpu_s(server.pid)
    for _ in range(NUM_SCRAPES):
        _scrape(server)
    return (tree_cpu_s(server.pid) - before_s) / NUM_SCRAPES * 1e3

"""Tokens a second that one server process writes as events; the engine computes nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Figures, Measure, Row, alternate
from bench.llm import MODEL
from bench.processes import run_module

BAR_PER_S = 20_000
STREAMS = (16, 64, 256)


def bench_sse(seconds: float, rounds: int) -> list[Row]:
    """Chat streams over real sockets, read by a client in a process of its own. The machine's cores
    are shared by engine, server and client; what the server itself needs is in the note."""
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is missing; make it with: python model_repository/build.py")
    rows = []
    for count in STREAMS:
        with server() as (pid, port):
            sides: dict[str, Measure] = {"ours": _measure(pid, port, count, seconds)}
            rows.append(_row(count, alternate(sides, rounds)["ours"]))
    return rows


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """Process id and port of the server process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sse_server", str(MODEL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def _measure(pid: int, port: int, count: int, seconds: float) -> Measure:
    arguments = {"pid": pid, "port": port, "streams": count, "seconds": seconds}
    return lambda: run_module("bench.sse_client", json.dumps(arguments))


def _row(count: int, found: Figures) -> Row:
    note = (
        f"server {found['server_cpu_us']:.1f} us of CPU a token, {found['server_busy']:.0%} busy; "
        f"{found['tokens_per_read']:.1f} tokens a read of the client"
    )
    print(f"{count} streams: {found['rate_per_s']:,.0f} tokens/s, {note}", flush=True)
    rate = found["rate_per_s"]
    return Row(f"SSE, {count} chat streams", "tokens/s", rate, BAR_PER_S, 1.0, note=note)

"""The cells: who is asked what, how many at once, and the ratio to reach."""

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from bench.figures import Figures, Measure, Row, alternate
from bench.peers.bodies import Body, grpc_body, http_body, json_body
from bench.peers.h2load import BadAnswers, run_h2load
from bench.peers.repository import one_tensor, two_tensors, write_repository
from bench.peers.triton import NoTriton, find_triton, triton
from bench.processes import Listener, echo, is_ready, trivet

SERVER_CORE, CLIENT_CORE = 0, 1
SIDES = "ours", "Triton", "floor"
LIVES = 3
CHOSEN = "TRIVET_BENCH_CELLS"
ONE_READ_BYTES = 4096
"""Such a request comes to the floor in one piece."""
TAIL_BAR = 1 / 2.5
"""p99 is at most so many times p50; the row has them the other way round."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One body, and our rate next to Triton's by requests in flight."""

    name: str
    body: Body
    bars: dict[int, float | None]


def all_cells() -> list[Cell]:
    """Triton answers `in-server` by its backend in C, `python` by its stub."""
    one, two = one_tensor(), two_tensors()
    grpc_bars, http_bars = {1: 1.1, 8: 1.8, 64: 3.0}, {1: 1.0, 8: 1.2, 64: 1.5}
    several, dressed = "in-server-two", "two tensors, id, parameter, outputs"
    return [
        Cell("in-server, gRPC", grpc_body("in-server", one), {**grpc_bars}),
        Cell("in-server, HTTP", http_body("in-server", one), {**http_bars}),
        Cell("in-server, JSON", json_body("in-server", one), {1: None, 8: None, 64: 2.0}),
        Cell(f"{dressed}, gRPC", grpc_body(several, two, dressed=True), {**grpc_bars}),
        Cell(f"{dressed}, HTTP", http_body(several, two, dressed=True), {**http_bars}),
        Cell("Python model, gRPC", grpc_body("python", one), {1: 1.2, 8: 1.5, 64: 2.5}),
        Cell("Python model, HTTP", http_body("python", one), {1: 1.2, 8: 1.2, 64: 1.2}),
        *_large_cells(),
    ]


def _large_cells() -> list[Cell]:
    cells = []
    for mebibytes, grpc_bars in ((1, {1: 1.5, 4: 1.5}), (16, {1: 1.5, 4: 1.3})):
        large, size = one_tensor(mebibytes << 18), f"{mebibytes} MiB"
        cells += [
            Cell(f"{size}, gRPC", grpc_body("in-server", large), {**grpc_bars}),
            Cell(f"{size}, HTTP", http_body("in-server", large), {1: 1.5, 4: 1.5}),
        ]
    return cells


def chosen_cells() -> list[Cell]:
    """Those with one of the texts in their names that the environment lists; without it all."""
    texts = os.environ.get(CHOSEN, "").split(";")
    return [cell for cell in all_cells() if any(text in cell.name for text in texts)]


def bench_peers(seconds: float, rounds: int) -> list[Row]:
    """Rates next to Triton's, the servers on core 0, h2load on core 1. Says how to get Triton where
    it is not. The third CPU time of a note is that of the floor: a protocol on our event loop that
    sends the body back and looks at nothing."""
    try:
        find_triton()
    except NoTriton as error:
        print(error, file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_repository(folder / "our-models", "identity")
        ours = stack.enter_context(trivet(folder / "our-models", core=SERVER_CORE))
        floor = stack.enter_context(echo("http-protocol", SERVER_CORE))
        rows = []
        for cell in chosen_cells():
            servers = {"ours": ours}
            if cell.body.protocol == "http" and len(cell.body.content) <= ONE_READ_BYTES:
                servers["floor"] = floor
            rows += _rows_of(cell, servers, seconds, rounds)
        return rows


def _rows_of(cell: Cell, servers: dict[str, Listener], seconds: float, rounds: int) -> list[Row]:
    """Beside a Triton of its own: under h2load's gRPC one may die, and is started again."""
    for _ in range(LIVES):
        with tempfile.TemporaryDirectory() as name, triton(Path(name), SERVER_CORE) as theirs:
            try:
                return _rows_beside(cell, {**servers, "Triton": theirs}, seconds, rounds)
            except (grpc.RpcError, BadAnswers, OSError):
                if is_ready(theirs.ports["http"]):
                    raise
                print(f"{cell.name}: Triton has died", file=sys.stderr)
    raise RuntimeError(f"{cell.name}: Triton has died {LIVES} times")


def _rows_beside(
    cell: Cell, servers: dict[str, Listener], seconds: float, rounds: int
) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for in_flight, bar in cell.bars.items():
            sides = {
                side: _measure(cell.body, server, in_flight, seconds, Path(name))
                for side, server in servers.items()
            }
            rows += _rows(f"{cell.name}, c={in_flight}", bar, alternate(sides, rounds))
    return rows


def _measure(body: Body, server: Listener, in_flight: int, seconds: float, folder: Path) -> Measure:
    return lambda: run_h2load(body, server, in_flight, seconds, folder, CLIENT_CORE)


def _rows(cell: str, bar: float | None, found: dict[str, Figures]) -> list[Row]:
    ours, theirs = found["ours"], found["Triton"]
    costs = [f"{found[each]['server_cpu_us']:.0f}" for each in SIDES if each in found]
    tails = [f"p50 {each['p50_us']:.0f} p99 {each['p99_us']:.0f}" for each in (ours, theirs)]
    note = f"CPU {' / '.join(costs)} us"
    print(
        f"{cell}: {ours['rate_per_s']:,.0f} / {theirs['rate_per_s']:,.0f} 1/s, {note}", flush=True
    )
    rate = Row(cell, "1/s", ours["rate_per_s"], theirs["rate_per_s"], bar, note=note)
    tail = Row(f"{cell}, p50 next to p99", "us", ours["p50_us"], ours["p99_us"], TAIL_BAR)
    return [rate, replace(tail, note=f"{tails[0]} / {tails[1]} us")]

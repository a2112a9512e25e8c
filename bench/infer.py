"""16 floats through an identity model next to a bare echo of the same bytes."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.figures import Figures, Measure, Row, alternate, better, describe
from bench.messages import Request, write_request
from bench.processes import Listener, echo, run_load, trivet

BARS = {"grpc": 0.85, "http": 0.6}
ECHOES = {"grpc": ("grpc-asyncio", "grpc-threads"), "http": ("aiohttp",)}
CONFIG = """
backend: "identity"
max_batch_size: 64
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
dynamic_batching { }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def bench_infer(seconds: float, rounds: int) -> list[Row]:
    """Requests per second at 1, 8 and 64 requests in flight."""
    rows = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        request = _prepare(folder)
        ours = stack.enter_context(trivet(folder / "models"))
        kinds = [kind for each in ECHOES.values() for kind in each]
        echoes = {kind: stack.enter_context(echo(kind)) for kind in kinds}
        for protocol in ("grpc", "http"):
            listeners = {"ours": ours, **{kind: echoes[kind] for kind in ECHOES[protocol]}}
            for concurrency in (1, 8, 64):
                sides = {
                    side: _measure(request, protocol, listener, concurrency, seconds)
                    for side, listener in listeners.items()
                }
                rows.append(_row(protocol, concurrency, alternate(sides, rounds)))
    return rows


def _prepare(folder: Path) -> Request:
    write_identity(folder / "models")
    values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
    return write_request(folder, "identity", {"INPUT0": values}, values.tobytes())


def write_identity(repository: Path) -> None:
    """The model of this part."""
    (repository / "identity/1").mkdir(parents=True)
    (repository / "identity/config.pbtxt").write_text(CONFIG)


def _measure(
    request: Request, protocol: str, listener: Listener, concurrency: int, seconds: float
) -> Measure:
    load = request.load(protocol, listener, concurrency, seconds)
    return lambda: run_load(load)


def _row(protocol: str, concurrency: int, found: dict[str, Figures]) -> Row:
    cell = f"identity 16 floats, {protocol}, c={concurrency}"
    print(cell)
    for side, figures in found.items():
        print(describe(side, figures), flush=True)
    ours, bare = found["ours"], better(*(found[kind] for kind in ECHOES[protocol]))
    note = f"server CPU {ours['server_cpu_us']:.0f} / {bare['server_cpu_us']:.0f} us"
    return Row(cell, "1/s", ours["rate_per_s"], bare["rate_per_s"], BARS[protocol], note=note)

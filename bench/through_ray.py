"""The identity model through a Ray cluster's way in, next to the bare server.

Needs the extra `ray`."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.figures import Measure, Row, alternate, describe
from bench.infer import write_identity
from bench.messages import Request, write_request
from bench.processes import Listener, run_load, trivet
from bench.ray_cluster import RayCluster, free_port, has_ray

BAR = 0.7
CONCURRENCY = 64


def bench_through_ray(seconds: float, rounds: int) -> list[Row]:
    """Requests per second with 64 in flight. Nothing without Ray."""
    if not has_ray():
        print("through Ray: not measured, Ray is not installed")
        return []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_identity(folder / "models")
        values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
        request = write_request(folder, "identity", {"INPUT0": values}, values.tobytes())
        bare = stack.enter_context(trivet(folder / "models"))
        cluster = stack.enter_context(RayCluster())
        ports = {"http": free_port(), "grpc": free_port()}
        cluster.deploy(
            folder / "models", *(f"--{room}-port={port}" for room, port in ports.items())
        )
        ray = Listener(cluster.nodes[0].process.pid, ports)
        return [
            _row(protocol, alternate(_sides(request, protocol, bare, ray, seconds), rounds))
            for protocol in ("http", "grpc")
        ]


def _sides(
    request: Request, protocol: str, bare: Listener, ray: Listener, seconds: float
) -> dict[str, Measure]:
    def measure(listener: Listener) -> Measure:
        load = request.load(protocol, listener, CONCURRENCY, seconds)
        return lambda: run_load(load)

    return {"bare": measure(bare), "ours": measure(ray)}


def _row(protocol: str, found: dict[str, dict[str, float]]) -> Row:
    cell = f"identity through Ray, {protocol}, c={CONCURRENCY}"
    print(cell)
    for side, figures in found.items():
        print(describe(side, figures), flush=True)
    ours, bare = (found[side]["rate_per_s"] for side in ("ours", "bare"))
    return Row(cell, "1/s", ours, bare, BAR)

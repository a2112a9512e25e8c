"""16 MiB through an identity model next to a bare echo of the same bytes.

Rates count one direction: a tensor goes in and comes back once a request. Server CPU is also given
in whole-tensor copies: by the time of one `memcpy` of 16 MiB in the same run. That counts all that
the server process moves, the kernel's copies out of and into the socket (2) included.
"""

import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import orjson

from bench.figures import Figures, Measure, Row, alternate, better, describe
from bench.infer import ECHOES
from bench.messages import Request, write_request, write_shared_request
from bench.processes import Listener, echo, run_load, trivet

NUM_FLOATS = 4 * 2**20
SIZE_MB = NUM_FLOATS * 4 / 1e6
CONFIG = f"""
backend: "identity"
max_batch_size: 0
input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {NUM_FLOATS} ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {NUM_FLOATS} ] }} ]
"""
REGIONS = ("trivet_bench_in", "trivet_bench_out")


def bench_large(seconds: float, rounds: int) -> list[Row]:
    """MB/s of one request in flight over gRPC, HTTP and system shared memory."""
    rows = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "models/large/1").mkdir(parents=True)
        (folder / "models/large/config.pbtxt").write_text(CONFIG)
        values = np.random.default_rng(2).random(NUM_FLOATS, dtype=np.float32)
        request = write_request(folder, "large", {"INPUT0": values}, values.tobytes())
        ours = stack.enter_context(trivet(folder / "models", "--allow-client-shm=true"))
        kinds = [kind for each in ECHOES.values() for kind in each]
        echoes = {kind: stack.enter_context(echo(kind)) for kind in kinds}
        copy_ms = _copy_ms(values)
        print(f"one memcpy of the tensor: {copy_ms:.2f} ms")
        shared = stack.enter_context(_Shared(ours, values)).request(folder)
        for protocol in ("grpc", "http"):
            sides: dict[str, Measure] = {
                "ours": _measure(request, protocol, ours, seconds),
                "ours, shm": _measure(shared, protocol, ours, seconds),
            }
            for kind in ECHOES[protocol]:
                sides[kind] = _measure(request, protocol, echoes[kind], seconds)
            rows += _rows(protocol, alternate(sides, rounds), copy_ms)
    return rows


class _Shared:
    """Two regions, registered while the block runs; the output is compared at its end."""

    def __init__(self, server: Listener, values: "np.ndarray") -> None:
        self._url = f"http://127.0.0.1:{server.ports['http']}/v2/systemsharedmemory/"
        self._values = values
        self._files = [Path("/dev/shm") / name for name in REGIONS]

    def __enter__(self) -> Self:
        self._files[0].write_bytes(self._values.tobytes())
        self._files[1].write_bytes(bytes(self._values.nbytes))
        for name in REGIONS:
            region = {"key": f"/{name}", "offset": 0, "byte_size": self._values.nbytes}
            self._post(f"region/{name}/register", region)
        return self

    def __exit__(self, *raised: object) -> None:
        self._post("unregister", {})
        is_same = self._files[0].read_bytes() == self._files[1].read_bytes()
        for file in self._files:
            file.unlink()
        if raised[0] is None and not is_same:
            raise RuntimeError("the shared output region does not hold the input")

    def request(self, folder: Path) -> Request:
        return write_shared_request(folder, "large", NUM_FLOATS, REGIONS)

    def _post(self, path: str, body: dict[str, object]) -> None:
        with urllib.request.urlopen(self._url + path, data=orjson.dumps(body), timeout=10):
            pass


def _copy_ms(values: "np.ndarray") -> float:
    target = np.zeros_like(values)
    seen = []
    for _ in range(20):
        started_s = time.perf_counter()
        np.copyto(target, values)
        seen.append(time.perf_counter() - started_s)
    return sorted(seen)[10] * 1e3


def _measure(request: Request, protocol: str, listener: Listener, seconds: float) -> Measure:
    load = request.load(protocol, listener, 1, seconds)
    return lambda: run_load(load)


def _rows(protocol: str, found: dict[str, Figures], copy_ms: float) -> list[Row]:
    print(f"16 MiB, {protocol}")
    for side, figures in found.items():
        print(describe(side, figures), flush=True)
    bare = better(*(found[kind] for kind in ECHOES[protocol]))
    rows = []
    for side, label in (("ours", protocol), ("ours, shm", f"shared memory by {protocol}")):
        ours = found[side]
        copies = [each["server_cpu_us"] / 1e3 / copy_ms for each in (ours, bare)]
        note = f"server CPU in copies: {copies[0]:.1f} / {copies[1]:.1f}"
        rate, bare_rate = (each["rate_per_s"] * SIZE_MB for each in (ours, bare))
        rows.append(Row(f"identity 16 MiB, {label}", "MB/s", rate, bare_rate, None, note=note))
    return rows

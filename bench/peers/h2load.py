"""Runs h2load (the program of nghttp2), a client in C with one thread, and reads what it says."""

import re
import subprocess
import tempfile
from pathlib import Path

from bench.cpu import tree_cpu_s
from bench.figures import Figures
from bench.peers.bodies import Body, call, write_body
from bench.processes import Listener

_REQUESTS = re.compile(r"requests: .*, (\d+) done, (\d+) succeeded")
_RATE = re.compile(r"finished in .*?, ([\d.]+) req/s")
_DATA = re.compile(r"\((\d+)\) data")
_LEAST_SHARE = 0.95
"""Of the bytes of the checked answer: a gRPC error is an HTTP 200 without any."""
_STREAMS = 8
"""Connections of gRPC, at most: calls share them."""


class BadAnswers(Exception):
    """Some requests were not answered as the checked one was."""


def run_h2load(
    body: Body, server: Listener, in_flight: int, seconds: float, folder: Path, core: int
) -> Figures:
    """The figures of one run, after a checked call and a warm-up. Raises BadAnswers."""
    expected = len(call(body, server))
    with tempfile.NamedTemporaryFile(dir=folder) as log:
        command = _command(body, server, in_flight, folder, core)
        _run([*command, "-D", "500ms"])
        before_s = tree_cpu_s(server.pid)
        output = _run([*command, "-D", f"{seconds * 1000:.0f}ms", "--log-file", log.name])
        used_s = tree_cpu_s(server.pid) - before_s
        return figures_of(output, Path(log.name).read_text(), expected, used_s)


def _command(body: Body, server: Listener, in_flight: int, folder: Path, core: int) -> list[str]:
    connections = min(in_flight, _STREAMS) if body.protocol == "grpc" else in_flight
    command = ["taskset", "-c", str(core), "h2load", "-t", "1", "-c", str(connections)]
    command += ["-m", str(in_flight // connections), "-d", str(write_body(body, folder))]
    # A window of 1 GiB: the protocol's own would be the client's limit for large tensors.
    command += ["--h1"] if body.protocol == "http" else ["-w", "30", "-W", "30"]
    for name, value in body.headers:
        command += ["-H", f"{name}: {value}"]
    return [*command, f"http://127.0.0.1:{server.ports[body.protocol]}{body.path}"]


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def figures_of(output: str, log: str, expected_bytes: int, server_cpu_s: float) -> Figures:
    """From what h2load printed, and its log of requests (start, status, microseconds)."""
    requests, rate, data = (each.search(output) for each in (_REQUESTS, _RATE, _DATA))
    if requests is None or rate is None or data is None:
        raise BadAnswers(f"h2load said something else:\n{output}")
    done, succeeded = int(requests[1]), int(requests[2])
    if not done or succeeded < done or int(data[1]) < _LEAST_SHARE * expected_bytes * done:
        raise BadAnswers(
            f"{succeeded} of {done} answers are good, with {data[1]} bytes where each has "
            f"{expected_bytes}:\n{output}"
        )
    latencies = sorted(int(line.split("\t")[2]) for line in log.splitlines())
    return {
        "rate_per_s": float(rate[1]),
        "p50_us": latencies[len(latencies) // 2],
        "p99_us": latencies[len(latencies) * 99 // 100],
        "server_cpu_us": server_cpu_s / done * 1e6,
    }

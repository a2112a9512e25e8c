"""The cell of a language model's start: from the server's to its first token, of both commits."""

import json
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from bench.against.checkout import Side
from bench.against.comparison import Cost
from bench.against.rounds import Cells
from bench.llm import MAX_MODEL_LEN, MODEL
from bench.llm_servers import our_repository
from bench.processes import trivet


class StartPart:
    """What is told of a commit are the seconds and the CPU time until a client of a server that was
    not there has a token of SmolLM2's."""

    def __init__(self, seconds: float) -> None:
        """A start takes what it takes."""

    @contextmanager
    def open(self, sides: Iterable[Side]) -> Iterator[Cells]:
        """Nothing runs between measurements."""
        with tempfile.TemporaryDirectory() as folder:
            repository = our_repository(MODEL, Path(folder), MAX_MODEL_LEN)
            yield {"llm-start": partial(_measure, list(sides), repository)}


def _measure(sides: list[Side], repository: Path) -> Mapping[str, Cost]:
    return {side.name: start(side, repository) for side in sides}


def start(side: Side, repository: Path) -> Cost:
    """Of one commit's server."""
    started_s = time.monotonic()
    with trivet(repository, root=side.root) as server:
        _first_token(server.ports["http"])
        elapsed_s = time.monotonic() - started_s
        return Cost(_cpu_s(server.pid) * 1e6, 1 / elapsed_s)


def _first_token(port: int) -> None:
    body = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 1}
    url = f"http://127.0.0.1:{port}/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _cpu_s(pid: int) -> float:
    """Of a process and of all that it has started."""
    mine = psutil.Process(pid)
    total = 0.0
    for each in (mine, *mine.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total

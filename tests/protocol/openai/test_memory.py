"""Many short requests of all kinds: neither process grows, and no block stays in use."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from engine_processes import engines_of
from llm_site import engine_load, write_llm
from patience import patience
from serving import RunningServer, start_server

MIB = 1024 * 1024
CONFIG = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "33554432" } }
parameters { key: "max_model_len" value { string_value: "512" } }
"""
"""The cache's pages come with what is kept in them: the first requests fill all of it."""
CLIENTS = 8
WARM_UP = 300
"""Buffers, caches and arenas find their sizes in the first requests."""
ALLOWED_BYTES = 10 * MIB
"""A thousandth of a MiB kept for each of 10,000 requests would be seen."""


def body(number: int) -> bytes:
    """Requests take turns to be plain, streams, several choices, constrained, wrong."""
    ids = [(number * 31 + place) % 40_000 + 100 for place in range(20)]
    made = {"model": "smollm2", "prompt": ids, "max_tokens": 2, "temperature": 1}
    kinds: tuple[dict[str, object], ...] = (
        {}, {"stream": True}, {"n": 2}, {"structured_outputs": {"choice": ["yes", "no"]}},
        {"prompt": [-1]}, {"stream": True, "logprobs": 2, "stop": ["a"]},
    )  # fmt: skip
    return json.dumps(made | kinds[number % len(kinds)]).encode()


def run(server: RunningServer, numbers: range) -> None:
    """Over one connection; each 50th request is left before its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=patience())
    for number in numbers:
        connection.request("POST", "/v1/completions", body(number))
        if number % 50 == 0:
            assert isinstance(connection.sock, socket.socket)
            connection.close()
            continue
        answer = connection.getresponse()
        answer.read()
        assert answer.status == (400 if number % 6 == 4 else 200)
    connection.close()


def resident_bytes(server: RunningServer) -> tuple[int, int]:
    """Of the server and of its engine, which has a process for grammars of its own."""
    process = psutil.Process(server.process.pid)
    (engine,) = engines_of(server.process.pid)
    return process.memory_info().rss, engine.memory_info().rss


@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "count", [180, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "ten-thousand"]
)
def test_requests_leave_nothing_behind(tmp_path: Path, count: int) -> None:
    write_llm(tmp_path, "smollm2", CONFIG)
    server = start_server(tmp_path)
    try:
        for first, last in ((0, WARM_UP), (WARM_UP, WARM_UP + count)):
            before = resident_bytes(server)
            with ThreadPoolExecutor(CLIENTS) as pool:
                parts = [range(first + i, last, CLIENTS) for i in range(CLIENTS)]
                list(pool.map(lambda numbers: run(server, numbers), parts))
        server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle")
        grown = [now - then for now, then in zip(resident_bytes(server), before, strict=True)]
        assert max(grown) < ALLOWED_BYTES, [f"{size / MIB:.1f} MiB" for size in grown]
    finally:
        server.end()

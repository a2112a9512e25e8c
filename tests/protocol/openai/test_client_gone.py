"""Clients that go away: what they asked for stops and its cache is free, at once."""

import json
import re
import socket
import time
from contextlib import ExitStack

import pytest
from llm_site import Call
from serving import RunningServer

WITHIN_S = 3.0
"""A second where nothing else runs; a step and two heartbeats. The outputs would take minutes."""


def engine_load(server: RunningServer) -> tuple[float, float, float]:
    """Running and waiting requests, and the part of the cache in use."""
    page = server.metrics()

    def value(name: str) -> float:
        found = re.search(rf"^vllm:{name}{{.*}} (\S+)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])

    return (
        value("num_requests_running"),
        value("num_requests_waiting"),
        value("kv_cache_usage_perc"),
    )


def start(server: RunningServer, *, stream: bool, n: int = 1) -> socket.socket:
    body = json.dumps(
        {
            "model": "smollm2",
            "prompt": "Once upon a time",
            "max_tokens": 4000,
            "ignore_eos": True,
            "stream": stream,
            "n": n,
        }
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    opened = socket.create_connection(("127.0.0.1", server.http_port), timeout=30)
    opened.sendall(head.encode() + body)
    return opened


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 4])
def test_what_nobody_waits_for_ends_within_a_second(
    server: RunningServer, call: Call, stream: bool, n: int
) -> None:
    with start(server, stream=stream, n=n) as opened:
        server.wait_until(lambda: engine_load(server)[0] == n, "running")
        assert engine_load(server)[2] > 0
        if stream:
            assert opened.recv(100).startswith(b"HTTP/1.1 200")
    started_s = time.monotonic()
    server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle again")
    assert time.monotonic() - started_s < WITHIN_S
    assert (
        call("/v1/completions", {"model": "smollm2", "prompt": "a", "max_tokens": 1}).status == 200
    )


def test_a_storm_of_disconnects_leaves_nothing(server: RunningServer) -> None:
    for _ in range(3):
        with ExitStack() as stack:
            for number in range(16):
                stack.enter_context(start(server, stream=number % 2 == 0))
            server.wait_until(lambda: sum(engine_load(server)[:2]) > 0, "busy")
    server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle again", timeout_s=5)

"""Clients that go away: what they asked for stops and its cache is free, at once."""

import json
import socket
import time
from contextlib import ExitStack

import pytest
from llm_site import Call, engine_load
from patience import patience
from serving import RunningServer

"""A second where nothing else runs; a step and two heartbeats. The outputs would take minutes."""


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
    opened = socket.create_connection(("127.0.0.1", server.http_port), timeout=patience())
    opened.sendall(head.encode() + body)
    return opened


@pytest.mark.more_of("H31")
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
    assert time.monotonic() - started_s < patience(3)
    assert (
        call("/v1/completions", {"model": "smollm2", "prompt": "a", "max_tokens": 1}).status == 200
    )


@pytest.mark.rows("O40")
def test_a_storm_of_disconnects_leaves_nothing(server: RunningServer) -> None:
    for _ in range(3):
        with ExitStack() as stack:
            for number in range(16):
                stack.enter_context(start(server, stream=number % 2 == 0))
            server.wait_until(lambda: sum(engine_load(server)[:2]) > 0, "busy")
    server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle again")


def test_a_client_that_vanishes_while_its_prompt_is_read_costs_a_step(
    server: RunningServer, call: Call
) -> None:
    """The prompt takes six steps; the client is there for the first."""

    def body(first: int) -> bytes:
        ids = [(first + 7 * place) % 40_000 + 100 for place in range(3000)]
        return json.dumps({"model": "smollm2", "prompt": ids, "max_tokens": 1}).encode()

    def is_cut_short(first: int) -> bool:
        """Whether the engine goes on for two of six steps at most, and the heartbeats that tell."""
        started_s = time.monotonic()
        assert call("/v1/completions", body(first)).status == 200
        whole_s = time.monotonic() - started_s
        data = body(first + 1)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.http_port), patience()) as opened:
            opened.sendall(head.encode() + data)
            server.wait_until(lambda: engine_load(server)[2] > 0, "running")
        left_s = time.monotonic()
        server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle again")
        return time.monotonic() - left_s < whole_s / 2 + 0.5

    # Once is enough: what else the machine does makes it longer, never shorter.
    assert any(is_cut_short(first) for first in (1, 3, 5))

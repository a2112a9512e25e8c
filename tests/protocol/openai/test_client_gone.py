"""Clients that go away: what they asked for stops and its cache is free, at once."""

import json
import socket
import time
from contextlib import ExitStack

import pytest
from fault_room import metric
from llm_site import Call, engine_load
from patience import patience
from serving import RunningServer

"""A second where nothing else runs; a step and two heartbeats. The outputs would take minutes."""


def start(server: RunningServer, *, stream: bool, n: int = 1) -> socket.socket:
    body = json.dumps(
        {
            "model": "small",
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
    assert call("/v1/completions", {"model": "small", "prompt": "a", "max_tokens": 1}).status == 200


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
    """The prompts take a hundred steps; the client is there for the first few."""
    num_prompts, num_tokens = 8, 8000

    def num_computed() -> float:
        return sum(metric(server, "vllm:iteration_tokens_total_sum"))

    def is_cut_short(first: int) -> bool:
        before = num_computed()
        prompts = [
            [(first + 7 * place + number) % 40_000 + 100 for place in range(num_tokens)]
            for number in range(num_prompts)
        ]
        data = json.dumps({"model": "small", "prompt": prompts, "max_tokens": 1}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.http_port), patience()) as opened:
            opened.sendall(head.encode() + data)
            server.wait_until(lambda: num_computed() > before, "running")
        server.wait_until(lambda: engine_load(server) == (0, 0, 0), "idle again")
        return num_computed() - before < num_prompts * num_tokens

    # Once is enough: what else the machine does lets more steps pass, never fewer.
    assert any(is_cut_short(first) for first in (1, 10, 20))
    assert call("/v1/completions", {"model": "small", "prompt": "a", "max_tokens": 1}).status == 200

"""An engine that dies: its requests end, /health says so, and it comes back."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from engine_processes import engines_of
from llm_site import SMALL_LLM, Call, caller, write_small_llm
from patience import patience
from serving import RunningServer


@pytest.fixture
def fragile(serve: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    """A server of its own, since it is not well afterwards for a while."""
    write_small_llm(tmp_path, "small", SMALL_LLM)
    return serve(tmp_path)


def engine_of(server: RunningServer) -> psutil.Process:
    (found,) = engines_of(server.process.pid)
    return found


def health(call: Call) -> int:
    return call("/health").status


@pytest.mark.rows("O48")
def test_death_of_the_engine_ends_streams_and_shows_in_health_until_it_is_back(
    fragile: RunningServer,
) -> None:
    call = caller(fragile)
    assert health(call) == 200
    body = json.dumps({"inputs": "Once", "parameters": {"max_new_tokens": 4000}}).encode()
    request = urllib.request.Request(f"http://{fragile.http}/generate_stream", body)
    with urllib.request.urlopen(request, timeout=patience()) as stream:
        stream.read(10)
        engine_of(fragile).kill()
        *_, last = stream.read().decode().strip().split("\n\n")
    error = json.loads(last.removeprefix("data: "))
    assert error["error_type"] == "healthcheck"
    assert "died" in error["error"]
    reply = call("/health")
    assert (reply.status, reply.json["error_type"]) == (503, "healthcheck")
    refused = call("/generate", {"inputs": "Once"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    fragile.wait_until(lambda: health(call) == 200, "healthy again")
    again = call("/generate", {"inputs": "Once", "parameters": {"max_new_tokens": 2}})
    assert again.status == 200

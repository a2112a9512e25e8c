"""The prefix cache is forgotten on demand: what was there is computed again, and all goes on."""

import threading
from typing import Any

import pytest
from llm_site import Call, engine_load
from row_marks import shows
from serving import RunningServer

PROMPT = "Once upon a time there was a trivet that carried the hot dishes of a whole kingdom. " * 4
BODY = {"model": "small", "prompt": PROMPT, "max_tokens": 4, "temperature": 0}


def cached(call: Call) -> int:
    usage = call("/v1/completions", BODY).json["usage"]
    found: int = usage["prompt_tokens_details"]["cached_tokens"]
    return found


@pytest.mark.parametrize(
    "query", ["", "?model=small", "?reset_running_requests=true&reset_external=true"]
)
def test_what_prompts_begin_with_is_forgotten(call: Call, query: str) -> None:
    cached(call)
    assert cached(call) > 0
    reply = call(f"/reset_prefix_cache{query}", {})
    assert (reply.status, reply.body) == (200, b"")
    assert cached(call) == 0
    assert cached(call) > 0


def test_requests_that_run_are_computed_anew_and_say_the_same(
    server: RunningServer, call: Call
) -> None:
    asked = {**BODY, "max_tokens": 600, "ignore_eos": True}
    alone = call("/v1/completions", asked).json["choices"][0]["text"]
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.append(call("/v1/completions", asked)))
    thread.start()
    server.wait_until(lambda: engine_load(server)[0] == 1 or bool(told), "running")
    assert call("/reset_prefix_cache?reset_running_requests=true", {}).status == 200
    thread.join()
    assert told[0].json["choices"][0]["text"] == alone


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        shows("O53a", "?model=none", 404, "model"),
        shows("O53a", "?model=identity", 404, "model"),
        shows("O53b", "?reset_running_requests=sometimes", 400, "reset_running_requests"),
        shows("O53b", "?reset_external=2", 400, "reset_external"),
    ],
)
def test_wrong_queries_are_refused_by_name(call: Call, query: str, status: int, param: str) -> None:
    reply = call(f"/reset_prefix_cache{query}", {})
    assert (reply.status, reply.json["error"]["param"]) == (status, param)

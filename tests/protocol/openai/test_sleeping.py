"""Language models are put to sleep and woken by vLLM's routes, and a request wakes one, too."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_processes import engines_of
from llm_site import SMALL_LLM, Call, caller, write_small_llm
from row_marks import shows
from serving import RunningServer

BODY = {"model": "small", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}


def said(call: Call) -> str:
    found: str = call("/v1/completions", BODY).json["choices"][0]["text"]
    return found


def row(call: Call) -> Any:
    rows = call("/v2/repository/index", {}).json
    return next(each for each in rows if each["name"] == "small")


def test_a_model_that_was_put_to_sleep_is_ready_and_wakes_for_a_request(
    server: RunningServer, call: Call
) -> None:
    before, num_engines = said(call), len(engines_of(server.process.pid))
    assert call("/sleep?level=2&model=small", {}).status == 200
    assert call("/is_sleeping?model=small").json == {"is_sleeping": True}
    assert call("/v2/models/small/ready").status == 200
    assert (row(call)["state"], row(call)["reason"]) == ("READY", "asleep")
    page = server.metrics()
    assert 'trivet_model_asleep{model="small",version="1"} 1' in page
    assert 'model_name="small",sleep_state="discard_all"} 1' in page
    assert len(engines_of(server.process.pid)) == num_engines - 1
    assert call("/tokenize", {"model": "small", "prompt": "Once"}).status == 200
    assert call("/is_sleeping?model=small").json == {"is_sleeping": True}, "texts need no engine"
    assert said(call) == before
    assert call("/is_sleeping?model=small").json == {"is_sleeping": False}
    assert row(call).get("reason", "") == ""


def test_it_wakes_by_hand_with_the_last_of_its_tags(call: Call) -> None:
    assert call("/sleep", {}).status == 200
    assert call("/wake_up?tags=weights", {}).status == 200
    assert call("/is_sleeping").json == {"is_sleeping": True}
    assert call("/wake_up?tags=kv_cache", {}).status == 200
    assert call("/is_sleeping?model=small").json == {"is_sleeping": False}
    assert call("/wake_up", {}).status == 200


@pytest.mark.slow  # tests/server/models/sleeping has quicker ones
def test_an_engine_that_is_killed_while_it_wakes_ends_what_waits_and_another_one_wakes(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_small_llm(tmp_path, "small", SMALL_LLM)
    server = serve(tmp_path)
    own = caller(server)
    before = said(own)
    assert own("/sleep", {}).status == 200
    assert engines_of(server.process.pid) == []
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(own, "/v1/completions", BODY)
        server.wait_until(lambda: bool(engines_of(server.process.pid)), "an engine begins")
        engines_of(server.process.pid)[0].kill()
        reply = waiting.result()
    assert reply.status == 503
    assert "sleeps and does not wake" in reply.json["error"]["message"]
    assert int(reply.headers["retry-after"]) >= 1
    server.wait_until(lambda: own("/v1/completions", BODY).status == 200, "another one wakes")
    assert said(own) == before


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        shows("O56a", "/sleep?model=none", 404, "model"),
        shows("O56b", "/sleep?level=3", 400, "level"),
        shows("O56b", "/sleep?mode=abort", 400, "mode"),
        shows("O56b", "/wake_up?tags=soul", 400, "tags"),
    ],
)
def test_wrong_queries_are_refused_by_name(call: Call, path: str, status: int, param: str) -> None:
    reply = call(path, {})
    assert (reply.status, reply.json["error"]["param"]) == (status, param)

"""Adapters over a language model, as clients see them: models of their own, that come and go."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from family_models import BY_NAME, saved
from llm_site import Call, caller
from lora_adapters import edit, write_adapter
from patience import patience
from serving import RunningServer, start_server

CONFIG = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "8388608" } }
parameters { key: "dtype" value { string_value: "float32" } }
parameters { key: "num_threads" value { string_value: "1" } }
parameters { key: "max_loras" value { string_value: "2" } }
"""
PROMPT = [5, 9, 40, 3, 77, 8, 21]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, and beside it adapters that are not served yet."""
    folder = tmp_path_factory.mktemp("site")
    values = BY_NAME["Llama"].values()
    base = BY_NAME["Llama"].model(values)
    repository = folder / "repository"
    saved(base, values, repository / "base" / "1")
    (repository / "base" / "config.pbtxt").write_text(CONFIG)
    for seed, name in enumerate(("one", "two")):
        write_adapter(base, repository / "base" / "adapters" / name, seed)
    for seed, name in enumerate(("late", "dropped", "bad"), 5):
        write_adapter(base, folder / name, seed)
    edit(folder / "bad", use_dora=True)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    server = start_server(folder / "repository", "--repository-poll-secs=1")
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def call(server: RunningServer) -> Call:
    return caller(server)


def text(call: Call, model: str) -> str:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    reply = call("/v1/completions", body | {"ignore_eos": True})
    assert reply.status == 200, reply.body
    told: str = reply.json["choices"][0]["text"]
    return told


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + patience()
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def adapters(folder: Path) -> Path:
    return folder / "repository" / "base" / "adapters"


def names(call: Call) -> dict[str, str | None]:
    return {each["id"]: each["parent"] for each in call("/v1/models").json["data"]}


def test_adapters_are_listed_with_their_base(server: RunningServer) -> None:
    client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="-")
    listed = {each.id: each.model_dump()["parent"] for each in client.models.list()}
    assert listed == {"base": None, "one": "base", "two": "base"}
    assert client.models.retrieve("one").model_dump()["parent"] == "base"


def test_they_answer_by_both_names_and_otherwise_than_the_base(call: Call) -> None:
    told = {name: text(call, name) for name in ("base", "one", "two")}
    assert len(set(told.values())) == 3
    assert text(call, "base:one") == told["one"]
    assert text(call, "base:two") == told["two"]


def test_a_request_without_a_model_means_the_base(call: Call) -> None:
    body = {"inputs": "!", "parameters": {"max_new_tokens": 4}}
    base = call("/generate", body).json["generated_text"]
    body["parameters"] = {"max_new_tokens": 4, "adapter_id": "one"}
    one = call("/generate", body).json["generated_text"]
    named = {"model": "one", "inputs": "!", "parameters": {"max_new_tokens": 4}}
    assert call("/generate", named).json["generated_text"] == one
    assert base != one
    body["parameters"] = {"adapter_id": "none"}
    assert call("/generate", body).status == 422  # as TGI answers for a wrong one


def test_the_tensor_form_asks_them_as_models(call: Call) -> None:
    body = {"text_input": "!", "parameters": {"max_tokens": 4, "temperature": 0}}
    told = [
        call(f"/v2/models/{name}/generate", body).json["text_output"]
        for name in ("base", "one", "base:one")
    ]
    assert told[0] != told[1] == told[2]
    assert call("/v2/models/one").json["name"] == "base:one"
    reply = call("/v2/models/base/generate", body | {"parameters": {"lora": "one"}})
    assert reply.status == 400


def test_one_that_is_loaded_by_name_serves_until_it_is_unloaded(call: Call, folder: Path) -> None:
    wanted = {"lora_name": "fresh", "lora_path": "late"}
    assert call("/v1/load_lora_adapter", wanted).status == 404
    shutil.copytree(folder / "late", adapters(folder) / "late")
    until(lambda: "late" in names(call))
    reply = call("/v1/load_lora_adapter", wanted)
    assert (reply.status, reply.body) == (
        200, b"Success: LoRA adapter 'fresh' added successfully.",
    )  # fmt: skip
    assert text(call, "fresh") == text(call, "late")
    again = call("/v1/load_lora_adapter", wanted)
    assert again.status == 400
    assert "has already been loaded" in again.json["error"]["message"]
    assert call("/v1/load_lora_adapter", wanted | {"load_inplace": True}).status == 200
    reply = call("/v1/unload_lora_adapter", {"lora_name": "fresh"})
    assert reply.body == b"Success: LoRA adapter 'fresh' removed successfully."
    assert call("/v1/unload_lora_adapter", {"lora_name": "fresh"}).status == 404
    assert call("/v1/unload_lora_adapter", {"lora_name": "base:late"}).status == 200
    assert "late" not in names(call)
    gone = call("/v1/completions", {"model": "late", "prompt": PROMPT})
    assert gone.status == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"lora_name": "x", "lora_path": "../secret"}, "is no name of an adapter"),
        ({"lora_name": "x", "lora_path": "/etc"}, "and no path"),
        ({"lora_name": "a/b", "lora_path": "one"}, "is no name of an adapter"),
        ({"lora_name": "base", "lora_path": "one"}, "'base' is a model"),
        ({"lora_name": "x"}, "lora_path"),
        ({"lora_name": "", "lora_path": "one"}, "lora_name"),
        ({"lora_name": "other:x", "lora_path": "one"}, "lora_name: 'other' is no model that takes"),
        ({"lora_name": "x", "lora_path": "one", "model": "no"}, "'no' is no model that takes"),
    ],
)
@pytest.mark.rows("R39")
def test_what_cannot_be_loaded_is_refused_by_name(
    call: Call, body: dict[str, str], told: str
) -> None:
    reply = call("/v1/load_lora_adapter", body)
    assert reply.status in (400, 404)
    assert told in reply.json["error"]["message"]


def test_a_folder_that_is_dropped_in_serves_and_goes_with_its_folder(
    call: Call, server: RunningServer, folder: Path
) -> None:
    loads = server.metrics().count("vllm:cache_config_info{")
    before = text(call, "base")
    shutil.copytree(folder / "dropped", adapters(folder) / "dropped")
    until(lambda: "dropped" in names(call))
    assert text(call, "dropped") != before
    shutil.rmtree(adapters(folder) / "dropped")
    until(lambda: "dropped" not in names(call))
    assert text(call, "base") == before
    assert server.metrics().count("vllm:cache_config_info{") == loads
    assert not any("'base' version 1 is ready" in line for line in server.output[-20:])


@pytest.mark.rows("R38")
def test_a_bad_one_is_told_and_troubles_nobody_else(
    call: Call, server: RunningServer, folder: Path
) -> None:
    shutil.copytree(folder / "bad", adapters(folder) / "bad")
    until(lambda: ("base:bad", "1") in server.index())
    row = server.index()["base:bad", "1"]
    assert row["state"] == "UNAVAILABLE"
    assert "'use_dora' is 'True'" in row["reason"]
    reply = call("/v1/completions", {"model": "bad", "prompt": PROMPT})
    assert reply.status == 404
    assert "use_dora" in reply.json["error"]["message"]
    assert call("/v2/health/ready").status == 200
    assert text(call, "one") != text(call, "base")
    shutil.rmtree(adapters(folder) / "bad")
    until(lambda: ("base:bad", "1") not in server.index())


def test_metrics_tell_which_adapters_are_asked_for(server: RunningServer) -> None:
    (line,) = [
        line for line in server.metrics().splitlines()
        if line.startswith("vllm:lora_requests_info{")
    ]  # fmt: skip
    assert 'max_lora="2"' in line
    assert 'running_lora_adapters=""' in line
    assert json.dumps("base") in line

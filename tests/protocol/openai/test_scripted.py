"""What the real engine and server make of outputs that a test has written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_site import Call, caller
from scripted_llama import Script, bytes_of, write_scripted_llm
from serving import start_server

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer"}},
    "required": ["score"],
    "additionalProperties": False,
}
SCRIPTS: list[Script] = [bytes_of("ABCDEFGHIJKLM"), ['{"score":1', ","]]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    repository = tmp_path_factory.mktemp("scripted")
    write_models(repository)
    server = start_server(repository)
    yield caller(server)
    server.end()


def write_models(repository: Path) -> None:
    write_scripted_llm(repository, "scripted", SCRIPTS, otherwise=ord("}"))


def completed(call: Call, number: int = 0, **wishes: Any) -> Any:
    """The choice of a script."""
    asked = {"model": "scripted", "prompt": f"<s{number}>", "temperature": 0, "max_tokens": 20}
    reply = call("/v1/completions", asked | wishes)
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]


@pytest.mark.parametrize(
    ("min_tokens", "stop", "text"),
    [
        (0, "C", "AB"),
        (2, "C", "AB"),
        (3, "C", "ABCDEFGHIJKLM"),  # over with the third token, which is still one of the first
        (10, "C", "ABCDEFGHIJKLM"),
        (5, "K", "ABCDEFGHIJ"),
        (3, "CDE", "AB"),  # ends behind them
        (13, "M", "ABCDEFGHIJKLM"),
    ],
)
def test_stop_texts_wait_for_min_tokens(call: Call, min_tokens: int, stop: str, text: str) -> None:
    assert completed(call, min_tokens=min_tokens, stop=[stop])["text"] == text


def test_script_follows_its_schema(call: Call) -> None:
    choice = completed(call, 1, structured_outputs={"json": SCORE})
    assert json.loads(choice["text"]) == {"score": 1}


@pytest.mark.rows("O17")
def test_schema_without_a_way_out_is_refused(call: Call) -> None:
    schema = SCORE | {"patternProperties": {"^score$": {"type": "integer"}}}
    asked = {"model": "scripted", "prompt": "<s1>", "structured_outputs": {"json": schema}}
    reply = call("/v1/completions", asked)
    assert reply.status == 400
    assert "patternProperties '^score$'" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"bad_words": ["a" * 1001]}, "bad_words: a text of 1001 characters; at most 1000 may be"),
        ({"stop": ["a" * 1001]}, "stop: a text of 1001 characters"),
    ],
)
def test_texts_are_bounded_before_they_are_tokenised(
    call: Call, wishes: dict[str, Any], told: str
) -> None:
    asked = {"model": "scripted", "prompt": "<s0>", **wishes}
    reply = call("/v1/completions", asked)
    assert reply.status == 400
    assert told in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"bad_words": ["a" * 1001]}, "bad_words: a text of 1001 characters"),
        ({"stop": ["a" * 1001]}, "stop: a text of 1001 characters"),
        ({"stop": ["a"] * 129}, "stop: 129 texts; at most 128 are allowed"),
        ({"stop": [1]}, "stop: it must be a list of texts"),
        ({"bad_words": [1]}, "bad_words: it must be a list of texts"),
    ],
)
def test_texts_are_bounded_in_the_form_of_tensors_too(
    call: Call, wishes: dict[str, Any], told: str
) -> None:
    asked = {"text_input": "<s0>", "sampling_parameters": json.dumps(wishes)}
    reply = call("/v2/models/scripted/generate", asked)
    assert reply.status == 400
    assert told in reply.json["error"]

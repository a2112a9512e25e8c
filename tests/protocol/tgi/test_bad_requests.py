"""Wrong requests: each has status 422, TGI's form of an error, and a text that names the field."""

from typing import Any

import pytest
from llm_site import Call, Reply

ROWS: list[tuple[str, Any, str]] = [
    ("inputs empty", {"inputs": ""}, "inputs"),
    ("inputs missing", {}, "inputs"),
    ("inputs a number", {"inputs": 5}, "inputs"),
    ("inputs a list", {"inputs": ["a"]}, "inputs"),
    ("parameters a list", {"inputs": "a", "parameters": []}, "parameters"),
    ("no JSON", b"{", "JSON"),
    ("no object", b"[]", "object"),
    ("not UTF-8", b'{"inputs": "\xff"}', "JSON"),
    ("nothing", b"", "JSON"),
]
PARAMETERS: list[tuple[str, dict[str, Any], str]] = [
    ("best_of 0", {"best_of": 0}, "best_of"),
    ("best_of 3", {"best_of": 3, "do_sample": True}, "best_of"),
    ("best_of without sampling", {"best_of": 2}, "best_of"),
    ("best_of with a seed", {"best_of": 2, "do_sample": True, "seed": 1}, "best_of"),
    ("temperature 0", {"temperature": 0}, "temperature"),
    ("temperature -1", {"temperature": -1.0}, "temperature"),
    ("temperature a text", {"temperature": "1"}, "temperature"),
    ("repetition_penalty 0", {"repetition_penalty": 0}, "repetition_penalty"),
    ("frequency_penalty 3", {"frequency_penalty": 3}, "frequency_penalty"),
    ("frequency_penalty -3", {"frequency_penalty": -3}, "frequency_penalty"),
    ("top_k 0", {"top_k": 0}, "top_k"),
    ("top_k -1", {"top_k": -1}, "top_k"),
    ("top_p 0", {"top_p": 0}, "top_p"),
    ("top_p 2", {"top_p": 2}, "top_p"),
    ("typical_p 0", {"typical_p": 0}, "typical_p"),
    ("typical_p 1.1", {"typical_p": 1.1}, "typical_p"),
    ("max_new_tokens 0", {"max_new_tokens": 0}, "max_new_tokens"),
    ("max_new_tokens too many", {"max_new_tokens": 10**9}, "max_new_tokens"),
    ("max_new_tokens a fraction", {"max_new_tokens": 1.5}, "max_new_tokens"),
    ("stop 5", {"stop": list("abcde")}, "stop"),
    ("stop an empty text", {"stop": [""]}, "stop"),
    ("stop a text", {"stop": "a"}, "stop"),
    ("truncate 0", {"truncate": 0}, "truncate"),
    ("truncate too many", {"truncate": 10**9}, "truncate"),
    ("seed -1", {"seed": -1}, "seed"),
    ("seed 2**64", {"seed": 2**64}, "seed"),
    ("top_n_tokens 6", {"top_n_tokens": 6}, "top_n_tokens"),
    ("grammar of another type", {"grammar": {"type": "ebnf", "value": "x"}}, "grammar"),
    ("grammar without a value", {"grammar": {"type": "json"}}, "grammar.value"),
    ("grammar that is none", {"grammar": {"type": "regex", "value": "("}}, "grammar"),
    ("watermark", {"watermark": True}, "watermark"),
]


def refused(reply: Reply, named: str) -> None:
    assert reply.status == 422
    assert set(reply.json) == {"error", "error_type"}
    assert reply.json["error_type"] == "validation"
    assert named in reply.json["error"]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
@pytest.mark.parametrize(("body", "named"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_wrong_body_is_refused_by_name(call: Call, path: str, body: Any, named: str) -> None:
    refused(call(path, body), named)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize(
    ("parameters", "named"), [row[1:] for row in PARAMETERS], ids=[r[0] for r in PARAMETERS]
)
def test_wrong_parameter_is_refused_by_name(
    call: Call, path: str, parameters: dict[str, Any], named: str
) -> None:
    refused(call(path, {"inputs": "a", "parameters": parameters}), named)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"best_of": 2, "do_sample": True}, "best_of"),
        ({"decoder_input_details": True}, "decoder_input_details"),
    ],
)
def test_what_a_stream_cannot_tell_is_refused(
    call: Call, parameters: dict[str, Any], named: str
) -> None:
    refused(call("/generate_stream", {"inputs": "a", "parameters": parameters}), named)


def test_prompt_longer_than_the_model_takes_is_refused_with_both_numbers(call: Call) -> None:
    body = {"inputs": "word " * 9000, "parameters": {"max_new_tokens": 1}}
    reply = call("/generate", body)
    refused(reply, "inputs")
    assert "8192" in reply.json["error"]


def test_unknown_fields_are_ignored(call: Call) -> None:
    body = {"inputs": "a", "extra": 1, "parameters": {"max_new_tokens": 1, "extra": 1}}
    assert call("/generate", body).status == 200


def test_get_is_not_allowed(call: Call) -> None:
    assert call("/generate").status == 405

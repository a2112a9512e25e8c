"""Wrong requests: each is 400 in OpenAI's form, names its field, and leaves the server well."""

import time
from typing import Any

import pytest
from bad_input import case
from llm_site import Call, Reply
from patience import patience
from row_marks import shows

USER = {"role": "user", "content": "Hello"}
NEITHER = object()
"""As a row's value: the field is left out."""
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(200):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def schema(value: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": value}}


# Row of docs/bad-input.md, field, its value, the `param` of the error (where it is not the field).
BOTH: list[tuple[str, str, Any, str]] = [
    ("O03", "model", NEITHER, "model"),
    ("O03", "model", 5, "model"),
    ("O08", "temperature", -1, "temperature"),
    ("O08", "temperature", 3, "temperature"),
    ("O08", "temperature", "x", "temperature"),
    ("O08", "temperature", True, "temperature"),
    ("O09", "top_p", 0, "top_p"),
    ("O09", "top_p", 1.1, "top_p"),
    ("O09", "top_k", -2, "top_k"),
    ("O09", "min_p", 2, "min_p"),
    ("O09", "presence_penalty", 3, "presence_penalty"),
    ("O09", "frequency_penalty", -3, "frequency_penalty"),
    ("O09", "repetition_penalty", 0, "repetition_penalty"),
    ("O10", "n", 0, "n"),
    ("O10", "n", -1, "n"),
    ("O10", "n", 10**9, "n"),
    ("O11", "max_tokens", 0, "max_tokens"),
    ("O11", "max_tokens", -1, "max_tokens"),
    ("O11", "max_tokens", 1.5, "max_tokens"),
    ("O11", "max_tokens", 10**18, "max_tokens"),
    ("O11", "max_tokens", 9000, "max_tokens"),
    ("O12", "stop", ["a"] * 17, "stop"),
    ("O12", "stop", "", "stop"),
    ("O12", "stop", ["a", ""], "stop"),
    ("O12", "stop", "x" * 100_000, "stop"),
    ("O12", "stop", [1], "stop"),
    ("O13", "logit_bias", {"a": 1}, "logit_bias"),
    ("O13", "logit_bias", {"49152": 1}, "logit_bias"),
    ("O13", "logit_bias", {"-1": 1}, "logit_bias"),
    ("O13", "logit_bias", {"5": 101}, "logit_bias.5"),
    ("O13", "logit_bias", {"5": -101}, "logit_bias.5"),
    ("O13", "logit_bias", {str(i): 1 for i in range(2000)}, "logit_bias"),
    ("O15", "seed", 2**70, "seed"),
    ("O15", "seed", "x", "seed"),
    ("O16", "stream", "yes", "stream"),
    ("O16", "stream_options", {"include_usage": True}, "stream_options"),
    ("O17", "response_format", {"type": "yaml"}, "response_format.type"),
    ("O17", "response_format", {"type": "json_schema"}, "response_format.json_schema.schema"),
    ("O17", "response_format", {"type": "json"}, "response_format.value"),
    ("O17", "response_format", {"type": "regex", "value": {}}, "response_format.value"),
    ("O17", "response_format", {"type": "regex", "value": "("}, "response_format"),
    ("O17", "response_format", schema({"type": "stsring"}), "response_format"),
    ("O17", "response_format", schema({"type": "string", "pattern": "("}), "response_format"),
    ("O17", "response_format", schema({"$ref": "#/$defs/none"}), "response_format"),
    ("O17", "response_format", schema({"$ref": "http://127.0.0.1:9/s.json"}), "response_format"),
    ("O17", "response_format", schema(DEEP), "response_format"),
    ("O19", "structured_outputs", {}, "structured_outputs"),
    ("O19", "structured_outputs", {"regex": "("}, "structured_outputs"),
    ("O19", "structured_outputs", {"choice": []}, "structured_outputs.choice"),
    ("O19", "structured_outputs", {"grammar": ""}, "structured_outputs"),
    ("O19", "structured_outputs", {"grammar": "x" * 10**6}, "structured_outputs"),
    ("O19", "structured_outputs", {"regex": "a", "choice": ["a"]}, "structured_outputs"),
    ("O23", "chat_template", "{{ messages }}", "chat_template"),
    ("O32", "prompt_embeds", "AAAA", "prompt_embeds"),
    ("O33", "best_of", 10**6, "best_of"),
    ("O33", "use_beam_search", True, "use_beam_search"),
    ("O34", "suffix", "end", "suffix"),
    ("O34", "audio", {"voice": "a"}, "audio"),
    ("", "guided_json", {"type": "object"}, "guided_json"),
    ("", "stop_token_ids", [49_152], "stop_token_ids"),
    ("", "allowed_token_ids", [], "allowed_token_ids"),
    ("", "min_tokens", 9, "min_tokens"),
    ("", "cache_salt", "", "cache_salt"),
    ("", "truncate_prompt_tokens", 0, "truncate_prompt_tokens"),
]
CHAT: list[tuple[str, str, Any, str]] = [
    ("O05", "messages", NEITHER, "messages"),
    ("O05", "messages", [], "messages"),
    ("O05", "messages", "Hello", "messages"),
    ("O06", "messages", [USER, {"role": "wizard", "content": "a"}], "messages[1].role"),
    ("O06", "messages", [USER, {"role": "user", "content": 5}], "messages[1].content"),
    ("O06", "messages", [USER, {"role": "tool", "content": "a"}], "messages[1].tool_call_id"),
    ("O07", "messages", [{"role": "user", "content": "word " * 20_000}], "prompt"),
    ("O11", "max_completion_tokens", 4, "max_tokens"),
    ("O11", "max_completion_tokens", 0, "max_completion_tokens"),
    ("O14", "top_logprobs", 21, "top_logprobs"),
    ("O14", "top_logprobs", 2, "top_logprobs"),
    ("", "tool_choice", "sometimes", "tool_choice"),
    ("O24", "chat_template_kwargs", {"messages": []}, "chat_template_kwargs"),
    ("O24", "chat_template_kwargs", {"chat_template": "x"}, "chat_template_kwargs"),
    ("O24", "chat_template_kwargs", {"tokenize": True}, "chat_template_kwargs"),
    ("", "continue_final_message", True, "continue_final_message"),
]
PROMPTS: list[tuple[str, str, Any, str]] = [
    ("O31", "prompt", NEITHER, "prompt"),
    ("O31", "prompt", "", "prompt"),
    ("O31", "prompt", [], "prompt"),
    ("O31", "prompt", [[]], "prompt"),
    ("O29", "prompt", [-1], "prompt"),
    ("O29", "prompt", [49_152], "prompt"),
    ("O29", "prompt", [10**7], "prompt"),
    ("O29", "prompt", [[[1]]], "prompt"),
    ("O29", "prompt", [1, "a"], "prompt"),
    ("O29", "prompt", [1.5], "prompt"),
    ("O30", "prompt", ["a"] * case("O30").numbers[0], "prompt"),
    ("O07", "prompt", "word " * 20_000, "prompt"),
    ("O14", "logprobs", 21, "logprobs"),
    ("O14", "logprobs", -1, "logprobs"),
    ("O14", "logprobs", True, "logprobs"),
]


def label(value: Any) -> str:
    return "left-out" if value is NEITHER else str(value)[:40]


def examples(*tables: list[tuple[str, str, Any, str]]) -> list[Any]:
    """Of the tables, each marked with its row."""
    return [
        shows(row, field, value, param, label=f"{row} {field} {label(value)}")
        for table in tables
        for row, field, value, param in table
    ]


def refused(reply: Reply, param: str | None) -> None:
    assert reply.status == 400, reply.body[:500]
    assert list(reply.json) == ["error"]
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert error["message"]
    assert len(error["message"]) < 2500
    if param is not None:
        assert error["param"] == param, error


def body(field: str, value: object, base: dict[str, Any]) -> dict[str, Any]:
    made = {"model": "small", "max_tokens": 4, **base, field: value}
    if value is NEITHER:
        del made[field]
    return made


@pytest.mark.parametrize(("field", "value", "param"), examples(BOTH, CHAT))
def test_chat_refuses(call: Call, field: str, value: object, param: str) -> None:
    reply = call("/v1/chat/completions", body(field, value, {"messages": [USER]}))
    refused(reply, param)


@pytest.mark.parametrize(("field", "value", "param"), examples(BOTH, PROMPTS))
def test_completions_refuse(call: Call, field: str, value: object, param: str) -> None:
    refused(call("/v1/completions", body(field, value, {"prompt": "Hello"})), param)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        shows("O36", b'{"model": "small", "prompt": "\xff"}'),
        shows("O08", b'{"model": "small", "prompt": "a", "temperature": NaN}'),
        shows("O08", b'{"model": "small", "prompt": "a", "temperature": Infinity}'),
        shows("O08", b'{"model": "small", "prompt": "a", "temperature": 1e999}'),
        b"[" * 100_000,
    ],
    ids=lambda raw: str(raw[:60]),
)
def test_bodies_that_are_no_object_of_json_are_refused(call: Call, raw: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        refused(call(path, raw), None)


@pytest.mark.rows("O04")
@pytest.mark.parametrize("name", ["nothing", "../x", "", "identity", "small/1", "x" * 10_000])
def test_models_that_generate_nothing_are_not_found(call: Call, name: str) -> None:
    for path, rest in (("/v1/completions", {"prompt": "a"}), ("/tokenize", {"prompt": "a"})):
        reply = call(path, {"model": name, **rest})
        error = reply.json["error"]
        assert (reply.status, error["type"], error["param"]) == (404, "NotFoundError", "model")
        assert len(error["message"]) < 1000


@pytest.mark.rows("O18")
@pytest.mark.parametrize("regex", ["((a{1,1000}){1,1000}){1,1000}", "(a+)+b"])
def test_regexes_that_explode_elsewhere_are_compiled_as_far_as_used(call: Call, regex: str) -> None:
    started_s = time.monotonic()
    reply = call("/v1/completions", body("prompt", "a", {"structured_outputs": {"regex": regex}}))
    assert reply.status == 200
    assert set(reply.json["choices"][0]["text"]) <= {"a", "b"}
    assert time.monotonic() - started_s < patience(5)


def test_one_bad_request_among_many_harms_none(call: Call) -> None:
    good = body("prompt", "The capital of France is", {"temperature": 0})
    before = call("/v1/completions", good).json["choices"]
    refused(call("/v1/completions", {**good, "prompt": [49_152]}), "prompt")
    assert call("/v1/completions", good).json["choices"] == before


def test_unknown_fields_are_ignored(call: Call) -> None:
    assert call("/v1/completions", body("prompt", "a", {"colour": "red"})).status == 200


@pytest.mark.rows("O29")
@pytest.mark.parametrize("tokens", [[-1], [49_152], ["a"], "a", [1.5], NEITHER], ids=label)
def test_detokenize_refuses(call: Call, tokens: object) -> None:
    made = {} if tokens is NEITHER else {"tokens": tokens}
    refused(call("/detokenize", made), None)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"prompt": "a", "messages": [USER]}, {"prompt": 5}, {"messages": []}],
    ids=label,
)
def test_tokenize_refuses(call: Call, wrong: dict[str, Any]) -> None:
    refused(call("/tokenize", wrong), None)


@pytest.mark.rows("O42")
@pytest.mark.parametrize("given", ["x" * 7000, "\u00e9"], ids=label)
def test_request_ids_that_no_log_should_hold_are_replaced(call: Call, given: str) -> None:
    reply = call("/v1/models", **{"x-request-id": given})
    assert reply.headers["x-request-id"] != given
    assert len(reply.headers["x-request-id"]) <= 128

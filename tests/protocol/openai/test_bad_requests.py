"""Wrong requests: each is 400 in OpenAI's form, names its field, and leaves the server well."""

import time
from typing import Any

import pytest
from llm_site import Call, Reply
from patience import patience
from row_marks import rows_of_fields

USER = {"role": "user", "content": "Hello"}
NEITHER = object()
"""As a row's value: the field is left out."""
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(200):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def schema(value: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": value}}


# Field, its value, the `param` of the error (where it is not the field).
BOTH: list[tuple[str, Any, str]] = [
    ("model", NEITHER, "model"),
    ("model", 5, "model"),
    ("temperature", -1, "temperature"),
    ("temperature", 3, "temperature"),
    ("temperature", "x", "temperature"),
    ("temperature", True, "temperature"),
    ("top_p", 0, "top_p"),
    ("top_p", 1.1, "top_p"),
    ("top_k", -2, "top_k"),
    ("min_p", 2, "min_p"),
    ("presence_penalty", 3, "presence_penalty"),
    ("frequency_penalty", -3, "frequency_penalty"),
    ("repetition_penalty", 0, "repetition_penalty"),
    ("n", 0, "n"),
    ("n", -1, "n"),
    ("n", 10**9, "n"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", -1, "max_tokens"),
    ("max_tokens", 1.5, "max_tokens"),
    ("max_tokens", 10**18, "max_tokens"),
    ("max_tokens", 9000, "max_tokens"),
    ("stop", ["a"] * 17, "stop"),
    ("stop", "", "stop"),
    ("stop", ["a", ""], "stop"),
    ("stop", "x" * 100_000, "stop"),
    ("stop", [1], "stop"),
    ("logit_bias", {"a": 1}, "logit_bias"),
    ("logit_bias", {"49152": 1}, "logit_bias"),
    ("logit_bias", {"-1": 1}, "logit_bias"),
    ("logit_bias", {"5": 101}, "logit_bias.5"),
    ("logit_bias", {"5": -101}, "logit_bias.5"),
    ("logit_bias", {str(i): 1 for i in range(2000)}, "logit_bias"),
    ("seed", 2**70, "seed"),
    ("seed", "x", "seed"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": True}, "stream_options"),
    ("response_format", {"type": "yaml"}, "response_format.type"),
    ("response_format", {"type": "json_schema"}, "response_format.json_schema.schema"),
    ("response_format", {"type": "json"}, "response_format.value"),
    ("response_format", {"type": "regex", "value": {}}, "response_format.value"),
    ("response_format", {"type": "regex", "value": "("}, "response_format"),
    ("response_format", schema({"type": "stsring"}), "response_format"),
    ("response_format", schema({"type": "string", "pattern": "("}), "response_format"),
    ("response_format", schema({"$ref": "#/$defs/none"}), "response_format"),
    ("response_format", schema({"$ref": "http://127.0.0.1:9/s.json"}), "response_format"),
    ("response_format", schema(DEEP), "response_format"),
    ("structured_outputs", {}, "structured_outputs"),
    ("structured_outputs", {"regex": "("}, "structured_outputs"),
    ("structured_outputs", {"choice": []}, "structured_outputs.choice"),
    ("structured_outputs", {"grammar": ""}, "structured_outputs"),
    ("structured_outputs", {"grammar": "x" * 10**6}, "structured_outputs"),
    ("structured_outputs", {"regex": "a", "choice": ["a"]}, "structured_outputs"),
    ("chat_template", "{{ messages }}", "chat_template"),
    ("prompt_embeds", "AAAA", "prompt_embeds"),
    ("best_of", 10**6, "best_of"),
    ("use_beam_search", True, "use_beam_search"),
    ("suffix", "end", "suffix"),
    ("audio", {"voice": "a"}, "audio"),
    ("guided_json", {"type": "object"}, "guided_json"),
    ("stop_token_ids", [49_152], "stop_token_ids"),
    ("allowed_token_ids", [], "allowed_token_ids"),
    ("min_tokens", 9, "min_tokens"),
    ("cache_salt", "", "cache_salt"),
    ("truncate_prompt_tokens", 0, "truncate_prompt_tokens"),
]
CHAT: list[tuple[str, Any, str]] = [
    ("messages", NEITHER, "messages"),
    ("messages", [], "messages"),
    ("messages", "Hello", "messages"),
    ("messages", [USER, {"role": "wizard", "content": "a"}], "messages[1].role"),
    ("messages", [USER, {"role": "user", "content": 5}], "messages[1].content"),
    ("messages", [USER, {"role": "tool", "content": "a"}], "messages[1].tool_call_id"),
    ("messages", [{"role": "user", "content": "word " * 20_000}], "prompt"),
    ("max_completion_tokens", 4, "max_tokens"),
    ("max_completion_tokens", 0, "max_completion_tokens"),
    ("top_logprobs", 21, "top_logprobs"),
    ("top_logprobs", 2, "top_logprobs"),
    ("tool_choice", "sometimes", "tool_choice"),
    ("chat_template_kwargs", {"messages": []}, "chat_template_kwargs"),
    ("chat_template_kwargs", {"chat_template": "x"}, "chat_template_kwargs"),
    ("chat_template_kwargs", {"tokenize": True}, "chat_template_kwargs"),
    ("continue_final_message", True, "continue_final_message"),
]
PROMPTS: list[tuple[str, Any, str]] = [
    ("prompt", NEITHER, "prompt"),
    ("prompt", "", "prompt"),
    ("prompt", [], "prompt"),
    ("prompt", [[]], "prompt"),
    ("prompt", [-1], "prompt"),
    ("prompt", [49_152], "prompt"),
    ("prompt", [10**7], "prompt"),
    ("prompt", [[[1]]], "prompt"),
    ("prompt", [1, "a"], "prompt"),
    ("prompt", [1.5], "prompt"),
    ("prompt", ["a"] * 10_000, "prompt"),
    ("prompt", "word " * 20_000, "prompt"),
    ("logprobs", 21, "logprobs"),
    ("logprobs", -1, "logprobs"),
    ("logprobs", True, "logprobs"),
]


def label(row: Any) -> str:
    return "left-out" if row is NEITHER else str(row)[:40]


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
    made = {"model": "smollm2", "max_tokens": 4, **base, field: value}
    if value is NEITHER:
        del made[field]
    return made


@rows_of_fields(BOTH, CHAT)
@pytest.mark.parametrize(("field", "value", "param"), [*BOTH, *CHAT], ids=label)
def test_chat_refuses(call: Call, field: str, value: object, param: str) -> None:
    reply = call("/v1/chat/completions", body(field, value, {"messages": [USER]}))
    refused(reply, param)


@rows_of_fields(BOTH, PROMPTS)
@pytest.mark.parametrize(("field", "value", "param"), [*BOTH, *PROMPTS], ids=label)
def test_completions_refuse(call: Call, field: str, value: object, param: str) -> None:
    refused(call("/v1/completions", body(field, value, {"prompt": "Hello"})), param)


@pytest.mark.rows("O08", "O36")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"model": "smollm2", "prompt": "\xff"}',
        b'{"model": "smollm2", "prompt": "a", "temperature": NaN}',
        b'{"model": "smollm2", "prompt": "a", "temperature": Infinity}',
        b'{"model": "smollm2", "prompt": "a", "temperature": 1e999}',
        b"[" * 100_000,
    ],
    ids=lambda raw: str(raw[:60]),
)
def test_bodies_that_are_no_object_of_json_are_refused(call: Call, raw: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        refused(call(path, raw), None)


@pytest.mark.rows("O04")
@pytest.mark.parametrize("name", ["nothing", "../x", "", "identity", "smollm2/1", "x" * 10_000])
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

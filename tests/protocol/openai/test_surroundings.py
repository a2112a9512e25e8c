"""What surrounds generation: version, health, load, lists; fields that other servers have."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llm_site import Call
from patience import patience
from row_marks import shows

from trivet import __version__

USER = {"role": "user", "content": "Hello"}
TEXT: dict[str, Any] = {
    "model": "small", "prompt": "The capital of France is", "max_tokens": 3, "temperature": 0,
}  # fmt: skip


def test_version_ping_and_load(call: Call) -> None:
    assert call("/version").json == {"version": __version__}
    for reply in (call("/ping"), call("/ping", {})):
        assert (reply.status, reply.body) == (200, b"")
    assert call("/load").json == {"server_load": 0}


def test_unknown_model_is_an_error_document(call: Call) -> None:
    reply = call("/v1/models/nothing")
    assert reply.status == 404
    assert reply.json == {
        "error": {
            "message": "The model `nothing` does not exist.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }


# Field, a value that asks for what is not here, one that asks for nothing (None: there is none).
REFUSED: list[tuple[str, Any, Any]] = [
    ("best_of", 2, 1),
    ("suffix", "end", ""),
    ("functions", [{"name": "f"}], []),
    ("function_call", "auto", "none"),
    ("modalities", ["audio"], ["text"]),
    ("prediction", {"type": "content"}, None),
    ("length_penalty", 0.5, 1.0),
    ("repetition_detection", {}, None),
    ("return_prompt_text", True, False),
    ("media_io_kwargs", {"a": 1}, {}),
    ("kv_transfer_params", {"a": 1}, None),
    ("regex", "a", None),
    ("ebnf", "a", None),
    ("lora_path", "a", None),
    ("custom_logit_processor", "a", None),
    ("return_hidden_states", True, False),
]


@pytest.mark.parametrize(
    ("field", "wrong", "harmless"),
    [shows("O39" if row[0] == "lora_path" else "O34", *row, label=row[0]) for row in REFUSED],
)
def test_known_fields_that_are_not_offered_are_refused_by_name(
    call: Call, field: str, wrong: Any, harmless: Any
) -> None:
    assert call("/v1/completions", {**TEXT, field: wrong}).json["error"]["param"] == field
    assert call("/v1/completions", {**TEXT, field: harmless}).status == 200


@pytest.mark.rows("O51")
@pytest.mark.parametrize("budget", [5, -2, "some"])
def test_a_model_that_is_not_known_to_think_takes_no_budget_for_it(
    call: Call, budget: object
) -> None:
    reply = call("/v1/completions", {**TEXT, "thinking_token_budget": budget})
    assert (reply.status, reply.json["error"]["param"]) == (400, "thinking_token_budget")


@pytest.mark.parametrize("field", ["spaces_between_special_tokens", "include_reasoning"])
@pytest.mark.parametrize("value", [False, True])
def test_what_would_leave_out_what_is_never_written_asks_for_nothing(
    call: Call, field: str, value: bool
) -> None:
    assert call("/v1/completions", {**TEXT, field: value}).status == 200


def test_answers_have_the_fields_that_clients_look_for(call: Call) -> None:
    chat = call(
        "/v1/chat/completions", {"model": "small", "messages": [USER], "max_tokens": 1}
    ).json
    assert set(chat) == {
        "id", "object", "created", "model", "system_fingerprint", "service_tier", "choices",
        "usage", "prompt_logprobs",
    }  # fmt: skip
    assert chat["system_fingerprint"] == f"trivet-{__version__}"
    (choice,) = chat["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason", "stop_reason"}
    assert set(choice["message"]) == {"role", "content", "refusal"}
    assert set(chat["usage"]) == {
        "prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details",
        "completion_tokens_details",
    }  # fmt: skip


def test_id_of_the_request_is_the_answers(call: Call) -> None:
    assert call("/v1/completions", {**TEXT, "request_id": "mine-7"}).json["id"] == "cmpl-mine-7"
    refused = call("/v1/completions", {**TEXT, "request_id": "a\nb"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "request_id")


def test_tokens_may_be_named_by_their_ids(call: Call) -> None:
    wish = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    choice = call("/v1/completions", {**TEXT, **wish, "logprobs": 1}).json["choices"][0]
    named = [f"token_id:{token}" for token in choice["token_ids"]]
    assert choice["logprobs"]["tokens"] == named
    assert all(name in top for name, top in
               zip(named, choice["logprobs"]["top_logprobs"], strict=True))  # fmt: skip
    chat = {"model": "small", "messages": [USER], "max_tokens": 2, "logprobs": True}
    content = call("/v1/chat/completions", {**chat, **wish}).json["choices"][0]["logprobs"]
    assert all(entry["token"].startswith("token_id:") for entry in content["content"])


@pytest.mark.parametrize(("side", "kept"), [("left", "left"), ("right", "right"), (None, "left")])
def test_prompts_are_cut_where_asked(call: Call, side: str | None, kept: str) -> None:
    ids = list(range(1000, 1020))
    body = {**TEXT, "prompt": ids, "truncate_prompt_tokens": 5, "return_token_ids": True}
    found = call("/v1/completions", {**body, "truncation_side": side}).json["choices"][0]
    assert found["prompt_token_ids"] == (ids[-5:] if kept == "left" else ids[:5])


def test_echo_streams_the_last_message_first(call: Call) -> None:
    body = {"model": "small", "messages": [USER], "max_tokens": 2, "temperature": 0, "echo": True}
    whole = call("/v1/chat/completions", body).json["choices"][0]["message"]["content"]
    reply = call("/v1/chat/completions", {**body, "stream": True})
    lines = [line for line in reply.body.decode().split("\n\n") if "content" in line]
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
    assert "".join(delta["content"] for delta in deltas) == whole
    assert whole.startswith("Hello")


@pytest.mark.rows("O07")
def test_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(call: Call) -> None:
    huge = "word " * 4_000_000
    for path, body in (
        ("/v1/completions", {**TEXT, "prompt": huge}),
        ("/tokenize", {"prompt": huge}),
    ):
        started_s = time.monotonic()
        reply = call(path, body)
        assert (reply.status, reply.json["error"]["param"]) == (400, "prompt")
        assert "max_model_len" in reply.json["error"]["message"]
        assert time.monotonic() - started_s < patience(3)


@pytest.mark.rows("O38")
def test_penalties_of_any_strength_change_no_other_request(call: Call) -> None:
    wishes: list[dict[str, Any]] = [
        {"presence_penalty": 2, "frequency_penalty": -2},
        {"repetition_penalty": 5},
        {},
    ]

    def text(wish: dict[str, Any]) -> str:
        made: str = call("/v1/completions", {**TEXT, **wish}).json["choices"][0]["text"]
        return made

    alone = [text(wish) for wish in wishes]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(text, wishes * 2)) == alone * 2


def test_template_arguments_reach_tokenize_too(call: Call) -> None:
    plain = {"messages": [USER]}
    assert call("/tokenize", {**plain, "chat_template_kwargs": {"a": 1}}).status == 200
    refused = call("/tokenize", {**plain, "chat_template_kwargs": {"messages": []}})
    assert (refused.status, refused.json["error"]["param"]) == (400, "chat_template_kwargs")


@pytest.mark.rows("O24")
@pytest.mark.parametrize("field", ["chat_template_kwargs", "documents", "messages"])
def test_documents_nested_too_deeply_are_refused(call: Call, field: str) -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    given = {
        "chat_template_kwargs": f'"messages": [{json.dumps(USER)}], "chat_template_kwargs": {deep}',
        "documents": f'"messages": [{json.dumps(USER)}], "documents": [{deep}]',
        "messages": f'"messages": [{{"role": "user", "content": "a", "name": {deep}}}]',
    }[field]
    body = f'{{"model": "small", "max_tokens": 1, {given}}}'.encode()
    reply = call("/v1/chat/completions", body)
    assert reply.json["error"]["type"] == "BadRequestError"


def test_tokenizer_info_tells_what_a_client_needs_to_tokenise(call: Call) -> None:
    info = call("/tokenizer_info").json
    assert info["model_max_length"] == 8192
    assert info["vocab_size"] == 49_152
    assert info["eos_token"] == "<|im_end|>"
    assert info["eos_token_id"] == call("/tokenize", {"prompt": info["eos_token"]}).json["tokens"]
    assert "<|im_start|>" in info["chat_template"]
    assert call("/tokenizer_info?model=small").json == info
    assert call("/tokenizer_info?model=nothing").status == 404


def test_metrics_of_language_models_are_where_vllm_has_them(call: Call) -> None:
    reply = call("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b'vllm:num_requests_running{engine="0",model_name="small"}' in reply.body or (
        b'vllm:num_requests_running{engine="0",model_name="small"}' in reply.body
    )
    assert b"nv_inference" not in reply.body


def test_tokenize_renders_no_foreign_template_and_does_not_continue_what_it_ends(
    call: Call,
) -> None:
    for more, param in (
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"continue_final_message": True}, "continue_final_message"),
    ):
        reply = call("/tokenize", {"messages": [USER], **more})
        assert (reply.status, reply.json["error"]["param"]) == (400, param)


def test_tags_hold_where_they_begin_and_nowhere_else(call: Call) -> None:
    tag = {"begin": "Paris: ", "schema": {"enum": [17]}, "end": "!"}
    form = {"type": "structural_tag", "structures": [tag], "triggers": ["Paris"]}
    reply = call("/v1/completions", {**TEXT, "max_tokens": 6, "response_format": form})
    assert reply.json["choices"][0]["text"].startswith(" Paris: 17!")

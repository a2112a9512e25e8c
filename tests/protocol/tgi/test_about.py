"""/info, /health, /tokenize in both forms, /chat_tokenize."""

import json

from llm_site import Call

WRONG_MESSAGES: list[dict[str, object]] = [
    {},
    {"role": "nobody", "content": "a"},
    {"role": "user"},
    {"role": "user", "content": 5},
    {"role": "user", "content": ["a"]},
    {"role": "user", "content": [{"type": "text", "text": 5}]},
]
TEXT = "Grüße, 三脚架!"


def test_info_tells_model_and_limits(call: Call) -> None:
    info = call("/info").json
    assert info["model_id"] == "small"
    assert info["model_pipeline_tag"] == "text-generation"
    assert info["max_input_tokens"] == info["max_total_tokens"] - 1
    assert (info["max_best_of"], info["max_stop_sequences"]) == (2, 4)
    assert info["max_concurrent_requests"] > 0


def test_health_is_good_and_says_nothing(call: Call) -> None:
    reply = call("/health")
    assert (reply.status, reply.body) == (200, b"")


def test_tokenize_with_inputs_tells_tokens_and_their_places(call: Call) -> None:
    tokens = call("/tokenize", {"inputs": TEXT}).json
    assert all(set(token) == {"id", "text", "start", "stop"} for token in tokens)
    assert all(token["text"] == TEXT[token["start"] : token["stop"]] for token in tokens)
    assert tokens[-1]["stop"] == len(TEXT)


def test_both_forms_of_tokenize_give_the_same_tokens(call: Call) -> None:
    ours = [token["id"] for token in call("/tokenize", {"inputs": TEXT}).json]
    assert call("/tokenize", {"prompt": TEXT}).json["tokens"] == ours


def test_tokenize_errors_have_the_form_of_the_api_that_was_asked(call: Call) -> None:
    tgi = call("/tokenize", {"inputs": 5})
    assert (tgi.status, tgi.json["error_type"]) == (422, "validation")
    assert call("/tokenize", {"inputs": ""}).status == 422
    openai = call("/tokenize", {"prompt": 5})
    assert (openai.status, openai.json["error"]["type"]) == (400, "BadRequestError")
    assert call("/tokenize", b'"inputs"').status == 400


def test_chat_tokenize_renders_and_tokenises(call: Call) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    answer = call("/chat_tokenize", {"messages": messages}).json
    assert "Hello" in answer["templated_text"]
    assert answer["templated_text"].endswith("assistant\n")
    ids = [token["id"] for token in answer["tokenize_response"]]
    assert call("/tokenize", {"messages": messages}).json["tokens"] == ids


def test_chat_tokenize_refuses_wrong_conversations(call: Call) -> None:
    bodies: list[object] = [
        {},
        {"messages": []},
        {"messages": "Hello"},
        *({"messages": [message]} for message in WRONG_MESSAGES),
    ]
    for body in bodies:
        reply = call("/chat_tokenize", body)
        assert (reply.status, reply.json["error_type"]) == (422, "validation"), json.dumps(body)


def test_tokenize_refuses_wrong_conversations(call: Call) -> None:
    for message in WRONG_MESSAGES:
        reply = call("/tokenize", {"messages": [message]})
        assert reply.status == 400, json.dumps(message)
        assert reply.json["error"]["param"].startswith("messages[0]")

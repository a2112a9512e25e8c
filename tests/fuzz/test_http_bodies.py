"""Whatever the body, a decoder gives a request or an error that may be shown to its sender."""

import contextlib
import json
from typing import Any

import pytest
from fuzzing import fuzzed, json_bodies
from http_site import FakeCore
from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import ServingError
from trivet.server.http.anthropic.chats import chat_of
from trivet.server.http.anthropic.fields import MessagesFields
from trivet.server.http.generate import decode_generate
from trivet.server.http.json_document import parse_object
from trivet.server.http.limits import JsonLimits
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.embeddings import EmbeddingFields
from trivet.server.http.openai.fields import DetokenizeFields, TokenizeFields, parse
from trivet.server.http.openai.messages import plain_message
from trivet.server.http.openai.responses.chat_form import chat_of as response_chat
from trivet.server.http.openai.responses.fields import FORMS, ResponseFields
from trivet.server.http.openai.responses.items import as_items, kept
from trivet.server.http.openai.sampling_fields import CompletionFields
from trivet.server.http.raw_request import decode_raw
from trivet.server.http.tensors import InferDecoder
from trivet.server.http.tgi.fields import ChatTokenizeFields, GenerateFields, Parameters
from trivet.server.http.tgi.fields import TokenizeFields as TgiTokenizeFields

INPUT = {"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
INFER = {
    "id": "a",
    "parameters": {"sequence_id": 1, "sequence_start": True, "priority": 1, "timeout": 5},
    "inputs": [INPUT, {**INPUT, "name": "INPUT1", "parameters": {"binary_data_size": 8}}],
    "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1, "binary_data": True}}],
}
REGION = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 0}
IN_REGION = {
    "inputs": [{**INPUT, "parameters": REGION}],
    "outputs": [{"name": "O", "parameters": REGION}],
}
GENERATE = {
    "text_input": "a",
    "id": "b",
    "parameters": {"stream": True, "max_tokens": 5},
    "weights": [1.0],
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
TEXT = {"type": "text", "text": "a"}
SAMPLING = {
    "model": "m",
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "min_p": 0.1,
    "n": 2,
    "seed": 3,
    "max_tokens": 4,
    "stop": ["a"],
    "logit_bias": {"5": 1},
    "stream": True,
    "priority": 1,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"},
    "stop_token_ids": [1],
    "bad_words": ["a"],
    "echo": False,
    "allowed_token_ids": [1],
    "cache_salt": "s",
    "truncate_prompt_tokens": 5,
    "request_id": "i",
    "logprob_token_ids": [1],
    "thinking_token_budget": 5,
}
CHAT = {
    **SAMPLING,
    "top_logprobs": 1,
    "logprobs": True,
    "tools": [TOOL],
    "tool_choice": "auto",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "b", "tool_call_id": "1"},
    ],
    "chat_template_kwargs": {"a": 1},
    "documents": [{"a": "b"}],
    "continue_final_message": False,
}
RESPONSE = {
    "model": "m",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "d"},
    ],
    "instructions": "e",
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "top_logprobs": 1,
    "max_output_tokens": 5,
    "temperature": 0.5,
    "stream": True,
    "seed": 1,
    "top_k": 5,
}
MESSAGES = {
    "model": "m",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "a"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "a", "signature": "b"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [TEXT], "is_error": True},
                TEXT,
                {"type": "image", "source": {"type": "url", "url": "a"}},
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "description": "a"}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": {}}, "effort": "low"},
    "stop_sequences": ["a"],
    "temperature": 0.5,
    "top_k": 3,
    "stream": True,
    "metadata": {"user_id": "u"},
}
PARAMETERS = {
    "best_of": 1,
    "temperature": 0.5,
    "top_k": 1,
    "top_p": 0.5,
    "typical_p": 0.5,
    "stop": ["a"],
    "do_sample": True,
    "max_new_tokens": 5,
    "seed": 1,
    "truncate": 5,
    "details": True,
    "grammar": {"type": "regex", "value": "a"},
    "top_n_tokens": 1,
    "repetition_penalty": 1.1,
}
LIMITS = JsonLimits()


@pytest.fixture(scope="module")
def core() -> FakeCore:
    return FakeCore()


@fuzzed
@given(
    body=json_bodies(INFER) | json_bodies(IN_REGION),
    more=st.binary(max_size=24),
    split=st.booleans(),
)
def test_v2_infer(core: FakeCore, body: bytes, more: bytes, split: bool) -> None:
    decoder = InferDecoder(core.shared_memory.read, LIMITS)
    with contextlib.suppress(ServingError):
        if split:
            decoder.decode(memoryview(body + more), len(body), "two", None)
        else:
            decoder.decode(body, None, "two", None)


@fuzzed
@given(
    body=st.binary(max_size=80),
    model=st.sampled_from(["ident", "ident_str", "one_str", "ident_2d", "two"]),
)
def test_v2_infer_of_raw_bodies(core: FakeCore, body: bytes, model: str) -> None:
    with contextlib.suppress(ServingError):
        decode_raw(memoryview(body), core.signatures[model], model, None)


@fuzzed
@given(body=json_bodies(GENERATE))
def test_v2_generate(core: FakeCore, body: bytes) -> None:
    with contextlib.suppress(ServingError):
        decode_generate(parse_object(body, LIMITS), core.signatures["llm"], "llm", None)


@fuzzed
@given(body=st.binary(max_size=200))
def test_json_that_we_take_is_json(body: bytes) -> None:
    """And what Python's own reader refuses we refuse, too."""
    try:
        document = parse_object(body, LIMITS)
    except ServingError:
        return
    assert json.loads(body) == document


@fuzzed
@given(body=json_bodies(CHAT))
def test_openai_chat(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        fields = parse(ChatFields, body)
        fields.check()
        fields.sampling(fields.token_limit, fields.top_logprobs, {})
        fields.template_arguments()
        json.dumps([plain_message(message) for message in fields.messages])
        json.dumps(fields.shown_tools())


@fuzzed
@given(body=json_bodies(RESPONSE))
def test_openai_responses(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        asked = parse(ResponseFields, body, FORMS)
        asked.check()
        items = as_items(asked.input)
        chat = response_chat(asked, [], items)
        chat.sampling(chat.token_limit, chat.top_logprobs, {})
        json.dumps([plain_message(message) for message in chat.messages])
        json.dumps(chat.shown_tools())
        json.dumps([kept(item) for item in items])


@fuzzed
@given(body=json_bodies(MESSAGES))
def test_anthropic_messages(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        fields = parse(MessagesFields, body)
        fields.check()
        chat = chat_of(fields)
        chat.sampling(chat.token_limit, None, {})
        json.dumps([plain_message(message) for message in chat.messages])
        json.dumps(chat.shown_tools())


@fuzzed
@given(body=json_bodies({**SAMPLING, "prompt": ["a", "b"], "logprobs": 1}))
def test_openai_completions(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        fields = parse(CompletionFields, body)
        fields.check()
        fields.sampling(fields.max_tokens, fields.logprobs, {})
        fields.prompts()


@fuzzed
@given(
    body=json_bodies(
        {"model": "m", "input": ["a", "b"], "dimensions": 5, "encoding_format": "base64"}
    )
)
def test_openai_embeddings(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        fields = parse(EmbeddingFields, body)
        # One of the two, and none of it empty.
        assert all(fields.texts() or fields.token_ids())


OTHERS: dict[Any, Any] = {
    TokenizeFields: {"model": "m", "prompt": "a", "messages": [{"role": "user"}], "tools": [TOOL]},
    DetokenizeFields: {"model": "m", "tokens": [1, 2]},
    TgiTokenizeFields: {"inputs": "a", "add_special_tokens": True},
    ChatTokenizeFields: {"messages": [{"role": "user", "content": "a"}], "tools": [TOOL]},
}


@pytest.mark.parametrize(
    "kind", OTHERS, ids=lambda kind: kind.__module__.split(".")[-2] + kind.__name__
)
@fuzzed
@given(data=st.data())
def test_what_surrounds_generation(kind: Any, data: st.DataObject) -> None:
    with contextlib.suppress(ServingError):
        parse(kind, data.draw(json_bodies(OTHERS[kind])))


@fuzzed
@given(
    body=json_bodies({"inputs": "a", "stream": False, "parameters": PARAMETERS}),
    stream=st.booleans(),
)
def test_tgi_generate(body: bytes, stream: bool) -> None:
    with contextlib.suppress(ServingError):
        parameters = parse(GenerateFields, body).parameters or Parameters()
        parameters.check(is_stream=stream)
        if parameters.grammar is not None:
            parameters.grammar.grammar()

"""Ollama's API over a model that a test has written, asked by Ollama's own client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import ollama
import pytest
from heard import hear
from patience import patience
from row_marks import shows
from scripted_model import ScriptedModel, served

from trivet.backends.api import BackendFailed, Chunk, Finish, QueueFull
from trivet.server.http.app import HttpLimits

USER = [{"role": "user", "content": "a"}]
PNG = "iVBORw0KGgoAAAANSUhEUg=="
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


def talking() -> ScriptedModel:
    """With a chat template."""
    model = ScriptedModel()
    model.info = replace(model.info, chat_template="{{ messages }}")
    return model


def thinking(*pieces: str) -> ScriptedModel:
    model = talking()
    model.info = replace(model.info, reasoning_parser="think")
    model.pieces = pieces
    return model


@asynccontextmanager
async def client(model: ScriptedModel) -> AsyncIterator[ollama.AsyncClient]:
    async with (
        served({"m": model}) as url,
        ollama.AsyncClient(host=url, timeout=patience()) as made,
    ):
        yield made


@asynccontextmanager
async def posted(
    model: ScriptedModel, path: str, body: object, limits: HttpLimits | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        served({"m": model}, limits) as url,
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body) as answer,
    ):
        yield answer


async def test_a_chat_is_answered_as_ollamas_are() -> None:
    async with client(talking()) as asking:
        told = await asking.chat("m", USER)
    assert (told.message.role, told.message.content) == ("assistant", "Hello")
    assert (told.model, told.done, told.done_reason) == ("m", True, "stop")
    assert (told.prompt_eval_count, told.eval_count) == (3, 1)
    assert told.total_duration is not None
    assert told.eval_duration is not None
    assert told.total_duration >= told.eval_duration


async def test_a_stream_tells_thoughts_text_and_calls_in_lines() -> None:
    model = thinking("<think>h", "m</think>", "He", "llo", CALL)
    async with client(model) as asking:
        lines = [each async for each in await asking.chat("m", USER, tools=[TOOL], stream=True)]
        whole = await asking.chat("m", USER, tools=[TOOL])
    assert "".join(each.message.thinking or "" for each in lines) == "hm"
    assert "".join(each.message.content or "" for each in lines) == "Hello"
    assert [each.done for each in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == 5
    calls = [call for each in lines for call in each.message.tool_calls or ()]
    for found in (calls, whole.message.tool_calls or ()):
        assert [(each.function.name, each.function.arguments) for each in found] == [
            ("f", {"x": 1})
        ]
    assert (whole.message.thinking, whole.message.content) == ("hm", "Hello")


async def test_the_answer_of_a_tool_finds_its_call() -> None:
    model = talking()
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    result = {"role": "tool", "tool_name": "f", "content": "7"}
    async with client(model) as asking:
        await asking.chat("m", [*USER, called, result], tools=[TOOL])
    *_, call, answer = model.rendered[0].messages
    assert call["tool_calls"][0]["id"] == answer["tool_call_id"]


async def test_options_reach_the_model() -> None:
    model = talking()
    options = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": 3, "stop": ["E"],
        "repeat_penalty": 1.2, "num_predict": 9, "num_ctx": 4096,
    }  # fmt: skip
    async with client(model) as asking:
        await asking.chat("m", USER, options=options, format={"type": "object"}, think=False)
        await asking.chat("m", USER, options={"num_predict": -1})
    first, second = (each.sampling for each in model.requests)
    assert (first.temperature, first.top_p, first.top_k) == (0.5, 0.9, 7)
    assert (first.min_p, first.seed, first.stop, first.max_tokens) == (0.1, 3, ("E",), 9)
    assert first.repetition_penalty == 1.2
    assert first.grammar is not None
    assert first.grammar.kind == "json_schema"
    assert model.rendered[0].arguments == {"enable_thinking": False}
    assert second.max_tokens != first.max_tokens


async def test_a_prompt_is_a_message_or_what_the_model_reads_as_it_is() -> None:
    model = talking()
    async with client(model) as asking:
        told = await asking.generate("m", "Why?", system="be brief")
        raw = await asking.generate("m", "Why?", raw=True)
        lines = [each async for each in await asking.generate("m", "Why?", stream=True)]
    assert (
        told.response == raw.response == "".join(each.response or "" for each in lines) == "Hello"
    )
    assert model.rendered[0].messages == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "Why?"},
    ]  # fmt: skip
    assert len(model.rendered) == 2


async def test_a_model_without_a_chat_template_goes_on_with_the_prompt() -> None:
    model = ScriptedModel()
    async with client(model) as asking:
        assert (await asking.generate("m", "Why?")).response == "Hello"
    assert not model.rendered


async def test_the_usual_tag_means_the_model() -> None:
    async with client(talking()) as asking:
        assert (await asking.chat("m:latest", USER)).model == "m:latest"
        assert (await asking.show("m:latest")).capabilities == ["completion", "tools"]


async def test_without_a_prompt_the_model_is_looked_for() -> None:
    model = talking()
    async with client(model) as asking:
        assert (await asking.generate("m")).done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="does not exist") as failed:
            await asking.generate("other")
    assert failed.value.status_code == 404
    assert not model.requests


async def test_models_are_listed_and_shown() -> None:
    async with client(talking()) as asking:
        (entry,) = (await asking.list()).models
        (running,) = (await asking.ps()).models
        shown = await asking.show("m")
    assert (entry.model, running.model) == ("m", "m")
    assert shown.template == "{{ messages }}"
    assert shown.modelinfo == {"general.architecture": "script", "script.context_length": 4096}


# What is asked besides, and the field that the error names.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ("chat", {"messages": [{"role": "user", "images": ["?"]}]}, "messages[0].images[0]"),
    (
        "chat",
        {"messages": [{"role": "user", "images": ["AAAAAAAAAAAAAAAA"]}]},
        "messages[0].images",
    ),
    ("chat", {"messages": USER, "options": {"temperature": -1}}, "options.temperature"),
    ("chat", {"messages": USER, "options": {"mirostat": 2}}, "mirostat"),
    ("chat", {"messages": USER, "template": "{{ a }}"}, "template"),
    ("chat", {"messages": USER, "think": "much"}, "think"),
    ("chat", {"messages": USER, "format": 7}, "format"),
    ("generate", {"prompt": 3}, "prompt"),
    ("generate", {"prompt": "a", "context": [1]}, "context"),
    ("generate", {"prompt": "a", "raw": True, "images": [PNG]}, "images"),
    ("generate", {"prompt": "a", "raw": True, "system": "b"}, "system"),
    ("embed", {"input": 5}, "input"),
    ("show", {"model": 5}, "model"),
]


@pytest.mark.parametrize(
    ("path", "wish", "place"),
    [shows("O57", *each, label=f"{each[0]} {each[1]}"[:60]) for each in WRONG],
)
async def test_what_is_wrong_is_refused_by_its_name(
    path: str, wish: dict[str, Any], place: str
) -> None:
    async with posted(talking(), f"/api/{path}", {"model": "m", **wish}) as answer:
        told = await answer.json()
        hear(answer.status, text=await answer.text())
        assert answer.status == 400, told
        assert told["error"].startswith(place), told


async def test_an_error_before_the_first_token_has_its_own_status() -> None:
    class Full(ScriptedModel):
        def generate(self, request: Any, sink: Any) -> None:
            sink.fail(QueueFull("too many"))

    async with posted(Full(), "/api/chat", {"model": "m", "messages": USER}) as answer:
        assert answer.status == 503
        assert await answer.json() == {"error": "too many"}


async def test_a_later_error_is_the_last_line() -> None:
    class Failing(ScriptedModel):
        def generate(self, request: Any, sink: Any) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(sink.chunk, Chunk("Hel", (1,)))
            loop.call_later(0, loop.call_soon, sink.fail, BackendFailed("it broke"))

    async with client(Failing()) as asking:
        with pytest.raises(ollama.ResponseError, match="it broke"):
            [each async for each in await asking.chat("m", USER, stream=True)]


async def test_a_stream_that_has_nothing_to_say_sends_lines_that_say_nothing() -> None:
    model = talking()
    model.waits_for = asyncio.Event()
    limits = HttpLimits(event_keep_alive_s=0.01)
    async with posted(model, "/api/chat", {"model": "m", "messages": USER}, limits) as answer:
        assert answer.content_type == "application/x-ndjson"
        async with asyncio.timeout(patience()):
            first = json.loads(await answer.content.readline())
        assert (first["message"]["content"], first["done"]) == ("", False)


async def test_a_cut_answer_says_so() -> None:
    model = talking()
    model.finish = Finish("length")
    async with client(model) as asking:
        assert (await asking.chat("m", USER)).done_reason == "length"

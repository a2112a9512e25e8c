"""POST /v1/messages over a model that a test has written."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from heard import hear
from patience import patience
from pydantic import TypeAdapter
from row_marks import shows
from scripted_model import ScriptedModel, served

from trivet.backends.api import BackendFailed, Chunk, Finish, QueueFull
from trivet.server.http.app import HttpLimits

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USER = [{"role": "user", "content": "a"}]
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 20, "messages": USER}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@asynccontextmanager
async def posted(
    model: ScriptedModel, body: object, path: str = "/v1/messages", **headers: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        served({"m": model}) as url,
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url + path, json=body) as answer,
    ):
        yield answer


async def asked(model: ScriptedModel, **wishes: Any) -> Message:
    async with posted(model, ASKED | wishes) as answer:
        assert answer.status == 200, await answer.text()
        return Message.model_validate(await answer.json(), strict=False)


async def streamed(model: ScriptedModel, **wishes: Any) -> list[tuple[str, Any]]:
    async with posted(model, ASKED | wishes | {"stream": True}) as answer:
        assert answer.content_type == "text/event-stream"
        return events_of(await answer.text())


def events_of(text: str) -> list[tuple[str, Any]]:
    """Names and documents, each of the type that the client's own package has for it."""
    *lines, rest = text.split("\n\n")
    assert rest == ""
    found = []
    for line in lines:
        name, _, data = line.removeprefix("event: ").partition("\ndata: ")
        document = json.loads(data)
        assert document["type"] == name
        if name not in ("ping", "error"):
            EVENTS.validate_python(document)
        found.append((name, document))
    return found


async def refused(body: Mapping[str, Any], path: str = "/v1/messages") -> Any:
    async with posted(ScriptedModel(), body, path) as answer:
        document = await answer.json()
        hear(answer.status, text=await answer.text())
        assert answer.headers["request-id"] == document["request_id"]
        return answer.status, document["error"]


def thinking(*pieces: str) -> ScriptedModel:
    model = ScriptedModel()
    model.info = replace(model.info, reasoning_parser="think")
    model.pieces = pieces
    return model


async def test_a_message_has_what_anthropics_have() -> None:
    told = await asked(ScriptedModel())
    assert (told.type, told.role, told.model) == ("message", "assistant", "m")
    assert [block.to_dict() for block in told.content] == [{"type": "text", "text": "Hello"}]
    assert (told.stop_reason, told.stop_sequence) == ("end_turn", None)
    assert told.usage.input_tokens + told.usage.output_tokens == 4
    assert told.id.startswith("msg_")


async def test_a_stream_tells_the_same_in_the_order_of_anthropics() -> None:
    model = thinking("<think>h", "m</think>", "He", "llo", CALL)
    told = await streamed(model, tools=[TOOL])
    names = [name for name, _ in told]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    deltas = [event["delta"] for name, event in told if name == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == [
        "thinking_delta", "thinking_delta", "signature_delta", "text_delta", "text_delta",
        "input_json_delta",
    ]  # fmt: skip
    assert told[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert told[-2][1]["usage"]["output_tokens"] == 5
    whole = await asked(model, tools=[TOOL])
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use"]
    assert whole.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop"), "end_turn", None),
        (Finish("stop", "END"), "stop_sequence", "END"),
        (Finish("length"), "model_context_window_exceeded", None),
    ],
)
async def test_it_is_told_why_a_message_ended(
    finish: Finish, reason: str, sequence: str | None
) -> None:
    model = ScriptedModel()
    model.finish = finish
    told = await asked(model, stop_sequences=["END"])
    assert (told.stop_reason, told.stop_sequence) == (reason, sequence)
    assert model.requests[0].sampling.stop == ("END",)


async def test_a_limit_of_tokens_is_cut_to_what_the_model_has() -> None:
    model = ScriptedModel()
    model.finish = Finish("length")
    assert (await asked(model, max_tokens=1)).stop_reason == "max_tokens"
    await asked(model, max_tokens=1_000_000)
    assert [each.sampling.max_tokens for each in model.requests] == [1, 4096 - 3]


async def test_what_was_cached_is_not_counted_twice() -> None:
    class Cached(ScriptedModel):
        def generate(self, request: Any, sink: Any) -> None:
            end = Chunk("Hello", (1,), finish=Finish("stop"), num_cached=2)
            asyncio.get_running_loop().call_soon(sink.chunk, end)

    usage = (await asked(Cached())).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (1, 2)
    started = (await streamed(Cached()))[0][1]["message"]["usage"]
    assert (started["input_tokens"], started["cache_read_input_tokens"]) == (1, 2)


async def test_fields_reach_the_model() -> None:
    model = ScriptedModel()
    await asked(
        model,
        system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        metadata={"user_id": "u"},
        tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"effort": "low"},
        service_tier="auto",
        thinking={"type": "disabled"},
    )
    sampling, chat = model.requests[0].sampling, model.rendered[0]
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    assert sampling.grammar is not None
    # One call and no more: nothing is repeated.
    assert "*" not in json.loads(sampling.grammar.value)["rules"]["start"]
    assert chat.messages[0] == {"role": "system", "content": "be brief"}
    assert chat.tools == [
        {
            "type": "function",
            "function": {
                "name": "f", "description": "d", "parameters": TOOL["input_schema"],
            },
        }
    ]  # fmt: skip
    assert chat.arguments == {"reasoning_effort": "low", "enable_thinking": False}


async def test_tools_may_be_forbidden_or_named() -> None:
    model = ScriptedModel()
    await asked(model, tools=[TOOL], tool_choice={"type": "none"})
    assert model.rendered[0].tools is None
    model.pieces = ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',)
    told = await asked(model, tools=[TOOL], tool_choice={"type": "tool", "name": "f"})
    assert [block.type for block in told.content] == ["tool_use"]
    assert told.stop_reason == "tool_use"


@pytest.mark.parametrize("where", ["output_config", "output_format"])
async def test_text_may_have_to_match_a_schema(where: str) -> None:
    model = ScriptedModel()
    form = {"type": "json_schema", "schema": {"type": "object"}}
    await asked(model, **{where: {"format": form} if where == "output_config" else form})
    grammar = model.requests[0].sampling.grammar
    assert grammar is not None
    assert (grammar.kind, json.loads(grammar.value)) == ("json_schema", {"type": "object"})


async def test_a_turn_that_the_model_has_begun_goes_on() -> None:
    model = ScriptedModel()
    await asked(model, messages=[*USER, {"role": "assistant", "content": "The best"}])
    assert model.rendered[0].continue_final_message
    assert not model.rendered[0].add_generation_prompt


async def test_thoughts_are_not_told_where_they_are_not_wanted() -> None:
    model = thinking("<think>hm</think>", "yes")
    told = await asked(model, thinking={"type": "disabled"})
    assert [block.type for block in told.content] == ["text"]
    told = await asked(model, thinking={"type": "adaptive", "display": "omitted"})
    assert [block.type for block in told.content] == ["thinking", "text"]
    assert "hm" not in told.model_dump_json()


async def test_tokens_are_counted_without_a_message() -> None:
    body = {"model": "m", "messages": USER, "system": "be", "tools": [TOOL]}
    model = ScriptedModel()
    async with posted(model, body, "/v1/messages/count_tokens") as answer:
        told = MessageTokensCount.model_validate(await answer.json())
    assert told.input_tokens == 3
    assert not model.requests


VIDEO = {"type": "video"}
ORPHAN = {"type": "tool_result", "tool_use_id": "c"}
FORM = {"type": "json_schema", "schema": {}}
# What is asked besides, and where the error says that it is wrong.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [{"role": "user", "content": [ORPHAN]}]}, "messages"),
    ({"system": 5}, "system"),
    ({"temperature": -1}, "temperature"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": ["a"] * 200}, "stop_sequences"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "f", "type": "web_search_20250305"}]}, "tools[0].type"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [{**TOOL, "input_schema": {"type": "array"}}]}, "tools[0].input_schema.type"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_config": {"format": FORM}, "output_format": FORM}, "output_format"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
]


def row_of(place: str) -> str:
    return "O49" if place.startswith("messages") else "O50"


@pytest.mark.parametrize(
    ("wish", "place"),
    [shows(row_of(place), wish, place, label=f"{wish}"[:60]) for wish, place in WRONG],
)
async def test_what_is_wrong_is_refused_by_its_name(wish: dict[str, Any], place: str) -> None:
    status, error = await refused(ASKED | wish)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith(f"{place}: "), error


async def test_faults_of_http_have_the_form_too() -> None:
    async with served({"m": ScriptedModel()}) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/messages") as answer:
            assert (answer.status, (await answer.json())["type"]) == (405, "error")
        async with session.post(f"{url}/v1/messages/batches", json={}) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["type"] == "not_found_error"
        async with session.post(f"{url}/v1/messages", data=b"a", headers=PLAIN) as answer:
            assert (answer.status, (await answer.json())["type"]) == (415, "error")
        async with session.post(f"{url}/v1/messages", json={**ASKED, "model": "z"}) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["type"] == "not_found_error"


PLAIN = {"Content-Type": "text/plain"}


async def test_an_error_before_the_first_token_has_its_own_status() -> None:
    class Full(ScriptedModel):
        def generate(self, request: Any, sink: Any) -> None:
            sink.fail(QueueFull("too many", retry_after_s=300.0))

    async with posted(Full(), {**ASKED, "stream": True}) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["type"] == "overloaded_error"
        # The client would sleep for five minutes.
        assert answer.headers["x-should-retry"] == "false"


async def test_a_later_error_is_the_last_event() -> None:
    class Failing(ScriptedModel):
        def generate(self, request: Any, sink: Any) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(sink.chunk, Chunk("Hel", (1,)))
            loop.call_later(0, loop.call_soon, sink.fail, BackendFailed("it broke"))

    told = await streamed(Failing())
    assert [name for name, _ in told][-1] == "error"
    assert told[-1][1]["error"] == {"type": "api_error", "message": "it broke"}
    assert "message_stop" not in dict(told)


async def test_a_stream_that_has_nothing_to_say_pings() -> None:
    model = ScriptedModel()
    model.waits_for = asyncio.Event()
    limits = HttpLimits(event_keep_alive_s=0.01)
    async with (
        served({"m": model}, limits) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/messages", json={**ASKED, "stream": True}) as answer,
    ):
        async with asyncio.timeout(patience()):
            first = await answer.content.readuntil(b"\n\n")
        assert first == b'event: ping\ndata: {"type":"ping"}\n\n'
        model.waits_for.set()
        assert events_of((await answer.read()).decode())[-1][0] == "message_stop"


async def test_a_client_that_leaves_cancels_its_request() -> None:
    model = ScriptedModel()
    model.pieces = ("a", "b")
    model.waits_for = asyncio.Event()
    async with served({"m": model}) as url, aiohttp.ClientSession() as session:
        answer = await session.post(f"{url}/v1/messages", json={**ASKED, "stream": True})
        await answer.content.readany()
        answer.close()
        async with asyncio.timeout(patience()):
            while not model.requests[0].cancel.cancelled:
                await asyncio.sleep(0)
        model.waits_for.set()


async def test_models_are_told_in_anthropics_form_where_its_version_is_asked() -> None:
    models = {name: ScriptedModel() for name in ("a", "b", "c")}
    version = {"anthropic-version": "2023-06-01"}
    async with served(models) as url, aiohttp.ClientSession(headers=version) as session:

        async def get(path: str) -> Any:
            async with session.get(url + path) as answer:
                return await answer.json()

        page = await get("/v1/models?limit=2")
        assert [each["id"] for each in page["data"]] == ["a", "b"]
        assert (page["has_more"], page["last_id"]) == (True, "b")
        page = await get("/v1/models?limit=2&after_id=b")
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (["c"], False)
        page = await get("/v1/models?before_id=c&limit=1")
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (["b"], True)
        assert (await get("/v1/models?limit=0"))["error"]["type"] == "invalid_request_error"
        assert (await get("/v1/models/a"))["display_name"] == "a"
        assert (await get("/v1/models/z"))["error"]["type"] == "not_found_error"
    async with (
        served(models) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/models") as answer,
    ):
        assert (await answer.json())["object"] == "list"

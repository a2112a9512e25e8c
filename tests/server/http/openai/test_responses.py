"""Responses as OpenAI's own types see them, with a model that writes what the test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from auth_site import GuardedSite, Keys
from heard import hear
from http_site import FakeCore
from patience import patience
from response_events import events_of, items_of, response_of, told_whole
from scripted_model import ScriptedModel, served

from trivet.backends.api import Finish
from trivet.server.auth.keyring import Keyring
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.http.openai.responses import background

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ROME = '{"city": "Rome"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>'


@dataclass(frozen=True, slots=True)
class Site:
    """A server over one model, and plain requests to it."""

    model: ScriptedModel
    url: str
    session: aiohttp.ClientSession

    async def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        url = f"{self.url}/v1/responses{path}"
        async with self.session.request(method, url, json=body) as answer:
            told = await answer.read()
        hear(answer.status, text=told)
        return answer.status, told

    async def ask(self, **fields: Any) -> Any:
        """A whole response."""
        status, body = await self.send("POST", "", {"model": "m", "input": "Hi", **fields})
        assert status == 200, body
        return response_of(body)

    async def stream(self, **fields: Any) -> list[Any]:
        """A response's events."""
        asked = {"model": "m", "input": "Hi", "stream": True, **fields}
        status, body = await self.send("POST", "", asked)
        assert status == 200, body
        return events_of(body)

    async def both(self, **fields: Any) -> Any:
        """A whole response, once it is sure that a stream tells the same."""
        whole = await self.ask(**fields)
        streamed = told_whole(await self.stream(**fields))
        assert plain(streamed) == plain(whole)
        return whole

    async def refused(self, method: str = "POST", path: str = "", **fields: Any) -> Any:
        """The error of a request."""
        asked = {"model": "m", "input": "Hi", **fields} if method == "POST" else None
        status, body = await self.send(method, path, asked)
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return status, error


def plain(response: Any) -> Any:
    """Without what is new each time."""
    told = response.model_dump(exclude={"id", "created_at", "completed_at"})
    for item in told["output"]:
        item.pop("id")
        item.pop("call_id", None)
    return told


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def site(model: ScriptedModel) -> AsyncIterator[Site]:
    async with served({"m": model}) as url, aiohttp.ClientSession() as session:
        yield Site(model, url, session)


def think(model: ScriptedModel, *pieces: str) -> None:
    model.info = replace(model.info, reasoning_parser="think")
    model.pieces = pieces


async def test_text_is_one_message(site: Site) -> None:
    site.model.pieces = ["Hel", "lo"]
    response = await site.both(metadata={"a": "b"}, user="u", temperature=0.5)
    assert response.output_text == "Hello"
    assert (response.status, response.temperature, response.metadata) == (
        "completed", 0.5, {"a": "b"},
    )  # fmt: skip
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 2, 5)
    assert usage.input_tokens_details.cached_tokens == 0


async def test_events_of_a_text_come_in_openais_order(site: Site) -> None:
    site.model.pieces = ["a", "b"]
    assert [each.type.removeprefix("response.") for each in await site.stream()] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip


async def test_answer_of_nothing_is_an_empty_message(site: Site) -> None:
    site.model.pieces = [""]
    assert (await site.both()).output[0].content[0].text == ""


async def test_answer_that_was_cut_off_is_incomplete(site: Site) -> None:
    site.model.pieces, site.model.finish = ["Hel"], Finish("length")
    response = await site.both(max_output_tokens=1)
    assert response.status == response.output[0].status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 1


async def test_calls_are_items_of_their_own_behind_the_text(site: Site) -> None:
    site.model.pieces = ["I look.", *CALL, CALL]
    response = await site.both(tools=[WEATHER])
    text, first, second = response.output
    assert text.content[0].text == "I look."
    for call in (first, second):
        assert (call.type, call.name, call.arguments) == ("function_call", "weather", ROME)
    assert first.call_id != second.call_id
    assert site.model.rendered[0].tools == [
        {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    ]


async def test_forced_calls_follow_a_grammar(site: Site) -> None:
    site.model.pieces = list(CALL)
    named = {"type": "function", "name": "weather"}
    (call,) = (await site.both(tools=[WEATHER], tool_choice=named)).output
    assert call.arguments == ROME
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [named]}
    other = {"type": "function", "name": "other"}
    (call,) = (await site.both(tools=[WEATHER, other], tool_choice=allowed)).output
    assert call.arguments == ROME
    grammar = site.model.requests[-1].sampling.grammar
    assert grammar is not None
    assert "other" not in grammar.value


async def test_thoughts_are_an_item_and_their_tokens_are_counted(site: Site) -> None:
    think(site.model, "<think>", "a", "b", "</think>", "c")
    response = await site.both()
    thought, answer = response.output
    assert (thought.content[0].text, thought.summary) == ("ab", [])
    assert answer.content[0].text == "c"
    assert response.usage.output_tokens_details.reasoning_tokens == 4


async def test_thoughts_are_told_as_a_summary_where_one_is_wanted(site: Site) -> None:
    think(site.model, "<think>", "a", "</think>", "c")
    events = await site.stream(reasoning={"summary": "auto", "effort": "low"})
    assert told_whole(events).output[0].summary[0].text == "a"  # type: ignore[union-attr]
    kinds = {each.type for each in events}
    assert "response.reasoning_summary_text.delta" in kinds
    assert "response.reasoning_text.delta" not in kinds
    assert (site.model.rendered[0].arguments or {})["reasoning_effort"] == "low"


async def test_log_probabilities_come_with_the_text(site: Site) -> None:
    events = await site.stream(include=["message.output_text.logprobs"], top_logprobs=2)
    response = told_whole(events)
    (part,) = response.output[0].content  # type: ignore[union-attr, misc]
    assert [each.token for each in part.logprobs] == ["Hello"]  # type: ignore[union-attr]
    (delta,) = (each for each in events if each.type == "response.output_text.delta")
    assert [each.logprob for each in delta.logprobs] == [-1.0]
    assert site.model.requests[0].sampling.logprobs == 2


async def test_text_must_match_a_schema(site: Site) -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    response = await site.ask(text={"format": form})
    assert response.text.format.name == "n"
    grammar = site.model.requests[0].sampling.grammar
    assert grammar is not None
    assert json.loads(grammar.value) == schema
    assert (await site.ask(text={"format": {"type": "json_object"}})).text.format.type


async def test_every_kind_of_item_becomes_messages(site: Site) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ROME}
    await site.ask(
        instructions="Be brief.",
        tools=[WEATHER],
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [],
             "content": [{"type": "reasoning_text", "text": "Hm."}]},
            call, {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "Sunny."},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "Rain."}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "Both.", "annotations": []}]},
            {"role": "user", "content": "Thanks."},
        ],
    )  # fmt: skip
    told = [dict(message) for message in site.model.rendered[0].messages]
    assert [each["role"] for each in told] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "user",
    ]  # fmt: skip
    assert told[0]["content"] == "Be brief."
    assert told[2]["reasoning_content"] == "Hm."
    assert [each["id"] for each in told[2]["tool_calls"]] == ["c1", "c2"]
    assert told[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert [each["content"] for each in told[3:]] == ["Sunny.", "Rain.", "Both.", "Thanks."]


async def test_conversation_goes_on_from_a_response(site: Site) -> None:
    site.model.pieces = [CALL]
    first = await site.ask(instructions="Once.", tools=[WEATHER])
    site.model.pieces = ["Sunny."]
    output = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "S"}
    second = await site.ask(previous_response_id=first.id, input=[output], tools=[WEATHER])
    third = await site.ask(previous_response_id=second.id, input="And then?")
    told = site.model.rendered[-1].messages
    assert [each["role"] for each in told] == ["user", "assistant", "tool", "assistant", "user"]
    assert told[3]["content"] == "Sunny."
    assert third.previous_response_id == second.id


async def test_reference_stands_for_an_item_that_is_kept(site: Site) -> None:
    first = await site.ask()
    reference = {"type": "item_reference", "id": first.output[0].id}
    await site.ask(input=[reference, {"role": "user", "content": "Go on."}])
    assert [each["content"] for each in site.model.rendered[-1].messages] == ["Hello", "Go on."]
    status, error = await site.refused(input=[{"id": "msg_unknown"}])
    assert (status, error["param"]) == (400, "input[0].id")


async def test_an_item_is_referred_to_once(site: Site) -> None:
    first = await site.ask()
    reference = {"type": "item_reference", "id": first.output[0].id}
    between = {"role": "user", "content": "Go on."}
    status, error = await site.refused(input=[reference, between, reference])
    assert (status, error["param"]) == (400, "input[2].id")
    assert "was referred to before" in error["message"]


@pytest.mark.rows("O54a")
async def test_response_is_kept_until_it_is_deleted(site: Site) -> None:
    made = await site.ask()
    status, body = await site.send("GET", f"/{made.id}")
    assert (status, response_of(body)) == (200, made)
    _, body = await site.send("GET", f"/{made.id}/input_items")
    listed = items_of(body)
    assert listed.model_dump()["data"][0]["content"][0]["text"] == "Hi"
    _, body = await site.send("DELETE", f"/{made.id}")
    assert json.loads(body) == {"id": made.id, "object": "response", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        status, error = await site.refused(method, f"/{made.id}{path}")
        assert (status, error["param"]) == (404, "response_id")


async def test_items_are_listed_a_page_at_a_time(site: Site) -> None:
    made = await site.ask(input=[{"role": "user", "content": str(n)} for n in range(5)])

    async def page(query: str) -> Any:
        status, body = await site.send("GET", f"/{made.id}/input_items?{query}")
        assert status == 200, body
        return items_of(body)

    first = await page("limit=2&order=asc")
    assert [each.content[0].text for each in first.data] == ["0", "1"]
    assert first.has_more
    rest = await page(f"limit=3&order=asc&after={first.last_id}")
    assert [each.content[0].text for each in rest.data] == ["2", "3", "4"]
    assert not rest.has_more
    assert [each.content[0].text for each in (await page("")).data] == ["4", "3", "2", "1", "0"]
    for query in ("limit=0", "limit=x", "order=up", "after=nothing"):
        status, _ = await site.refused("GET", f"/{made.id}/input_items?{query}")
        assert status == 400


@pytest.mark.rows("O54a", "O54b")
async def test_response_that_is_not_to_be_kept_is_not(site: Site) -> None:
    made = await site.ask(store=False)
    status, _ = await site.refused("GET", f"/{made.id}")
    assert status == 404
    status, error = await site.refused(previous_response_id=made.id)
    assert (status, error["param"], error["code"]) == (
        400, "previous_response_id", "previous_response_not_found",
    )  # fmt: skip


async def test_the_least_recently_used_makes_room(model: ScriptedModel) -> None:
    async with (
        served({"m": model}, HttpLimits(max_stored_responses=2)) as url,
        aiohttp.ClientSession() as session,
    ):
        site = Site(model, url, session)
        first, second = await site.ask(), await site.ask()
        await site.send("GET", f"/{first.id}")
        third = await site.ask()
        found = [(await site.send("GET", f"/{each.id}"))[0] for each in (first, second, third)]
    assert found == [200, 404, 200]


async def test_tokens_of_an_input_are_counted_without_asking_the_model(site: Site) -> None:
    _, body = await site.send("POST", "/input_tokens", {"model": "m", "input": "Hi"})
    assert json.loads(body) == {"object": "response.input_tokens", "input_tokens": 3}
    assert site.model.requests == []


async def test_background_response_is_fetched_later(site: Site) -> None:
    site.model.waits_for = asyncio.Event()
    made = await site.ask(background=True)
    assert made.status == "queued"
    site.model.waits_for.set()
    ended = await until_ended(site, made.id)
    assert (ended.status, ended.output_text) == ("completed", "Hello")
    again = await site.ask(previous_response_id=made.id)
    assert again.status == "completed"


async def until_ended(site: Site, response_id: str) -> Any:
    while True:
        _, body = await site.send("GET", f"/{response_id}")
        found = response_of(body)
        if found.status not in ("queued", "in_progress"):
            return found


async def test_background_stream_goes_on_without_its_reader(site: Site) -> None:
    site.model.pieces, site.model.waits_for = ["Hel", "lo"], asyncio.Event()
    asked = {"model": "m", "input": "Hi", "background": True, "stream": True}
    async with site.session.post(f"{site.url}/v1/responses", json=asked) as answer:
        seen = b""
        while b"output_text.delta" not in seen:
            seen += await answer.content.readany()
    heard = events_of(seen[: seen.rindex(b"\n\n") + 2])
    site.model.waits_for.set()
    await until_ended(site, heard[0].response.id)
    number = heard[-1].sequence_number
    path = f"/{heard[0].response.id}?stream=true"
    _, rest = await site.send("GET", f"{path}&starting_after={number}")
    whole = told_whole([*heard, *events_of(rest)])
    assert whole.output_text == "Hello"
    _, again = await site.send("GET", path)
    assert [each.type for each in events_of(again)][:3] == [
        "response.created", "response.queued", "response.in_progress",
    ]  # fmt: skip
    assert told_whole(events_of(again)) == whole
    status, _ = await site.refused("GET", f"{path}&starting_after=x")
    assert status == 400


async def test_background_response_is_cancelled_once(site: Site) -> None:
    site.model.pieces, site.model.waits_for = ["Hel", "lo"], asyncio.Event()
    made = await site.ask(background=True, stream=False)
    for _ in range(2):
        status, body = await site.send("POST", f"/{made.id}/cancel")
        assert (status, response_of(body).status) == (200, "cancelled")
    assert site.model.requests[0].cancel.cancelled
    site.model.waits_for.set()
    assert (await until_ended(site, made.id)).status == "cancelled"


@pytest.mark.parametrize("streamed", [True, False])
async def test_background_response_that_outgrows_the_store_fails_and_says_so(
    streamed: bool,
) -> None:
    model = ScriptedModel()
    model.pieces, model.waits_for = ["x" * 1000] * 20, asyncio.Event()
    async with (
        served({"m": model}, HttpLimits(max_stored_response_bytes=15_000)) as url,
        aiohttp.ClientSession() as session,
    ):
        site = Site(model, url, session)
        asked = {"model": "m", "input": "Hi", "background": True, "stream": streamed}
        _, told = await site.send("POST", "", asked)
        made = events_of(told)[0].response if streamed else response_of(told)
        ended = await until_ended(site, made.id)
        assert (ended.status, ended.output) == ("failed", [])
        assert "at most 15000 are kept (--response-store-size)" in ended.error.message
        assert model.requests[0].cancel.cancelled
        if streamed:
            assert events_of(told)[-1].type == "response.failed"
            _, again = await site.send("GET", f"/{made.id}?stream=true")
            assert [each.type for each in events_of(again)] == ["response.failed"]


async def test_what_is_deleted_while_it_is_read_ends_its_stream(site: Site) -> None:
    site.model.pieces, site.model.waits_for = ["Hel", "lo"], asyncio.Event()
    asked = {"model": "m", "input": "Hi", "background": True, "stream": True}
    async with site.session.post(f"{site.url}/v1/responses", json=asked) as answer:
        seen = await answer.content.readany()
        response_id = events_of(seen[: seen.index(b"\n\n") + 2])[0].response.id
        await site.send("DELETE", f"/{response_id}")
        seen += await answer.read()
    events = events_of(seen)
    assert told_whole(events).status == "cancelled"
    assert events[-1].type == "response.incomplete"


async def test_others_cannot_be_cancelled_or_streamed_again(site: Site) -> None:
    made = await site.ask()
    for method, path in (("POST", "/cancel"), ("GET", "?stream=true")):
        status, error = await site.refused(method, f"/{made.id}{path}")
        assert (status, error["type"]) == (400, "BadRequestError")


async def test_client_that_leaves_ends_its_response_unless_it_is_in_the_background(
    site: Site,
) -> None:
    site.model.pieces, site.model.waits_for = ["Hel", "lo"], asyncio.Event()
    asked = {"model": "m", "input": "Hi", "stream": True}
    async with site.session.post(f"{site.url}/v1/responses", json=asked) as answer:
        await answer.content.readany()
        answer.close()
    while not site.model.requests[0].cancel.cancelled:
        await asyncio.sleep(0)


async def test_server_that_stops_ends_what_nobody_reads(model: ScriptedModel) -> None:
    model.waits_for = asyncio.Event()
    async with served({"m": model}) as url, aiohttp.ClientSession() as session:
        await Site(model, url, session).ask(background=True)
    assert model.requests[0].cancel.cancelled


async def test_server_that_stops_lets_a_reader_hear_the_end(
    model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_s = patience()
    monkeypatch.setattr(background, "ENDS_EARLY_S", limit_s)
    model.waits_for = asyncio.Event()
    server = HttpServer(FakeCore({"m": model}), HttpLimits(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{await server.start()}/v1/responses"
    asked = {"model": "m", "input": "Hi", "background": True, "stream": True}
    async with aiohttp.ClientSession() as session, session.post(url, json=asked) as answer:
        seen = await answer.content.readany()
        draining = asyncio.ensure_future(server.drain(limit_s))
        events = events_of(seen + await answer.read())
        await draining
    await server.close()
    assert [each.type for each in events if each.type.endswith("ed")][-1] == "response.failed"
    assert told_whole(events).error.message.startswith("the server is shutting down")  # type: ignore[union-attr]


@pytest.mark.rows("O54a", "O54b")
@pytest.mark.parametrize("kind", ["whole", "background"])
async def test_no_key_sees_what_another_has_made(
    model: ScriptedModel, tmp_path: Path, kind: str
) -> None:
    keys = Keys(tmp_path / "keys.toml")
    keys.add("mine", "infer")
    keys.add("other", "infer", more='tenant = "mine"')
    asked = {"model": "m", "input": "Hi", "background": kind == "background"}
    async with GuardedSite(Keyring(keys.path)) as site:
        site.core.models["m"] = model

        async def send(name: str, method: str, path: str = "", body: object = None) -> Any:
            url, headers = f"/v1/responses{path}", keys.header(name)
            async with site.session.request(method, url, json=body, headers=headers) as answer:
                hear(answer.status, text=await answer.read())
                return answer.status, await answer.json()

        _, made = await send("mine", "POST", "", asked)
        path, item = f"/{made['id']}", {"id": "none"}
        for method, below in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            status, told = await send("other", method, path + below)
            assert status == 404, told
            missing = await send("other", method, f"/resp_{'0' * 48}{below}")
            assert told["error"]["message"].replace(made["id"], "") == missing[1]["error"][
                "message"
            ].replace(f"resp_{'0' * 48}", "")
        assert (await send("other", "DELETE", path))[0] == 404
        _, told = await send("other", "POST", "", {**asked, "previous_response_id": made["id"]})
        assert told["error"]["code"] == "previous_response_not_found"
        status, found = await send("mine", "GET", path)
        assert (status, found["id"]) == (200, made["id"])
        item = found["output"][0] if found["output"] else item
        status, _ = await send("other", "POST", "", {**asked, "input": [{"id": item["id"]}]})
        assert status == 400


async def test_response_that_waits_is_refused_what_a_new_one_would_be(site: Site) -> None:
    site.model.waits_for = asyncio.Event()
    made = await site.ask(background=True)
    status, error = await site.refused(previous_response_id=made.id)
    assert (status, error["param"]) == (400, "previous_response_id")
    assert "has not ended" in error["message"]


async def test_conversation_that_is_too_long_loses_its_oldest_turns(site: Site) -> None:
    def turn(number: int) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": f"u{number}"},
            {"role": "assistant", "content": f"a{number}"},
        ]

    site.model.tokens_per_message = 1000
    given = [item for number in range(5) for item in turn(number)] + turn(5)[:1]
    await site.ask(input=given, instructions="Be brief.", truncation="auto", max_output_tokens=90)
    told = [each["content"] for each in site.model.rendered[-1].messages]
    assert told == ["Be brief.", "u4", "a4", "u5"]
    status, error = await site.refused(input=given)
    assert (status, error["param"]) == (400, None)
    site.model.tokens_per_message = 5000
    status, _ = await site.refused(input=given, truncation="auto")
    assert status == 400


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "it is missing"),
    ({"input": []}, "input", "it is missing"),
    ({"input": 3}, "input", "a text or a list of items"),
    ({"input": [{"role": "user"}]}, "input[0].content", "it is missing"),
    ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "one of"),
    ({"input": [{"type": "web_search_call"}]}, "input[0].type", "not offered"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "a"}]},
     "input[0].call_id", "no function_call"),
    ({"input": [{"type": "function_call", "call_id": "x", "name": "a", "arguments": "["}]},
     "input[0].arguments", "JSON object"),
    ({"input": [{"type": "reasoning", "summary": 5}]}, "input[0].summary", "a list"),
    ({"input": [{"type": "reasoning", "content": ["a"]}]}, "input[0].content[0]", "an object"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
     "input[0].content[0].type", "not offered"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
     "input[0].content[0].file_id", "no files"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "OpenAI runs itself"),
    ({"tools": [{"type": "mcp", "server_label": "a"}]}, "tools[0].type", "OpenAI runs itself"),
    ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools[0].function", "beside"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name", "there already"),
    ({"tools": [{**WEATHER, "name": "a b"}]}, "tools[0].name", "match pattern"),
    ({"tools": [WEATHER], "tool_choice": "must"}, "tool_choice", "one of"),
    ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice.type", "offered"),
    ({"tools": [{**WEATHER, "name": {}}], "tool_choice": {
        "type": "allowed_tools", "mode": "auto", "tools": [{"name": "weather"}]}},
     "tool_choice.tools[0].name", "no tool has it"),
    ({"tool_choice": "required"}, "tool_choice", "only with tools"),
    ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
    ({"prompt": {"id": "p"}}, "prompt", "instructions"),
    ({"background": True, "store": False}, "background", "store"),
    ({"previous_response_id": "resp_x"}, "previous_response_id", "not kept"),
    ({"max_tokens": 3}, "max_tokens", "max_output_tokens"),
    ({"max_output_tokens": 0}, "max_output_tokens", "greater than"),
    ({"temperature": 3}, "temperature", "less than"),
    ({"include": ["everything"]}, "include", "it must be of"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", "missing"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "Input should be"),
    ({"reasoning": {"summary": "concise"}}, "reasoning.summary", "nobody"),
    ({"metadata": {"a": "b" * 513}}, "metadata", "at most 512"),
    ({"top_logprobs": 50}, "top_logprobs", "more than 5"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options", "stream=true"),
    ({"truncation": "left"}, "truncation", "Input should be"),
]  # fmt: skip


@pytest.mark.rows("O55")
@pytest.mark.parametrize(("fields", "param", "text"), BAD, ids=[str(each[0])[:50] for each in BAD])
async def test_bad_request_names_its_field(
    site: Site, fields: dict[str, Any], param: str, text: str
) -> None:
    status, error = await site.refused(**fields)
    assert (status, error["param"]) == (400, param), error
    assert text in error["message"]
    assert site.model.requests == []

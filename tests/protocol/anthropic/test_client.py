"""Anthropic's own client, as people use it, over the small language model."""

import asyncio
from typing import Any, Literal

import anthropic
import pytest
from llm_site import Call
from patience import patience
from pydantic import BaseModel, ConfigDict
from serving import RunningServer

MODEL = "small"
USER: list[Any] = [{"role": "user", "content": "Name a city and say how big it is."}]
TOOL: Any = {
    "name": "choose",
    "input_schema": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}
GREEDY = {"temperature": 0}
"""Not among the client's own arguments any more."""
FORCED: Any = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "choose"}}


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else a document may go on for ever

    name: Literal["Rome", "Oslo", "Lima"]
    size: Literal["small", "large"]


def ask(client: anthropic.Anthropic, **wishes: Any) -> Any:
    asked: dict[str, Any] = {"model": MODEL, "messages": USER, "max_tokens": 8}
    return client.messages.create(**asked | wishes, extra_body=GREEDY)


def test_messages_are_those_of_chats(client: anthropic.Anthropic, call: Call) -> None:
    chat = {"model": MODEL, "messages": USER, "max_tokens": 8, "temperature": 0}
    same = call("/v1/chat/completions", chat).json
    told = ask(client)
    assert told.content[0].text == same["choices"][0]["message"]["content"]
    assert told.stop_reason == "max_tokens"
    usage = told.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == same["usage"]["prompt_tokens"]
    assert usage.output_tokens == 8
    assert told._request_id


def test_streams_tell_the_same(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    with client.messages.stream(
        model=MODEL, messages=USER, max_tokens=8, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    (block,) = message.content
    assert block.type == "text"
    assert text == block.text == whole.content[0].text
    assert message.usage.output_tokens == 8


def test_a_stop_sequence_is_told(client: anthropic.Anthropic) -> None:
    word = ask(client).content[0].text.split()[2]
    told = ask(client, stop_sequences=[word])
    assert (told.stop_reason, told.stop_sequence) == ("stop_sequence", word)


def test_tools_are_used_and_answered(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model=MODEL, messages=USER, max_tokens=40, **FORCED, extra_body=GREEDY
    ) as stream:
        kinds = {event.type for event in stream}
        called = stream.get_final_message()
    assert "input_json" in kinds
    assert called.stop_reason == "tool_use"
    (use,) = called.content
    assert use.type == "tool_use"
    assert use.input["colour"] in ("red", "blue")
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "done"}
    turns = [*USER, called.to_param(), {"role": "user", "content": [result]}]
    assert ask(client, messages=turns, tools=[TOOL]).content


def test_documents_are_parsed_into_models(client: anthropic.Anthropic) -> None:
    parsed = client.messages.parse(
        model=MODEL, messages=USER, max_tokens=40, output_format=City,
        extra_body=GREEDY,
    )  # fmt: skip
    assert isinstance(parsed.parsed_output, City)


def test_tokens_are_counted_as_they_are_used(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": MODEL, "messages": USER, "system": "Be brief.", "tools": [TOOL]}
    counted = client.messages.count_tokens(**asked).input_tokens
    usage = ask(client, **asked).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert [each.id for each in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).type == "model"


def test_the_clients_errors_are_those_of_anthropic(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(client, model="none")
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="messages\\[0\\]"):
        ask(client, messages=[{"role": "user", "content": [{"type": "video"}]}])


async def test_many_at_a_time_give_what_each_gives_alone(server: RunningServer) -> None:
    turns = [[{"role": "user", "content": words}] for words in ("Count.", "Sing.", "Hello?")]
    async with anthropic.AsyncAnthropic(
        base_url=f"http://{server.http}", api_key="none", max_retries=0, timeout=patience()
    ) as client:

        async def text_of(messages: Any) -> str:
            told = await client.messages.create(
                model=MODEL, messages=messages, max_tokens=6, extra_body=GREEDY
            )
            return "".join(block.text for block in told.content if block.type == "text")

        alone = [await text_of(each) for each in turns]
        assert await asyncio.gather(*map(text_of, turns)) == alone

"""OpenAI's own client asks /v1/responses, unmodified."""

import json
from typing import Any, Literal

import openai
import pytest
from llm_site import Call
from patience import patience
from pydantic import BaseModel, ConfigDict
from response_events import events_of, told_whole
from serving import RunningServer

MODEL = "small"
COLOURS: Any = {
    "type": "function",
    "name": "choose",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["Rome", "Oslo", "Lima"]
    size: Literal["small", "large"]


def ask(client: openai.OpenAI, **options: Any) -> Any:
    given = {"input": "Name a city.", "max_output_tokens": 6, "temperature": 0, **options}
    return client.responses.create(model=MODEL, **given)


def test_a_response_says_what_a_chat_says(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a city."},
    ]  # fmt: skip
    chat = client.chat.completions.create(
        model=MODEL, messages=messages, max_completion_tokens=6, temperature=0
    )
    response = ask(client, instructions="Be brief.")
    assert response.output_text == chat.choices[0].message.content
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert (response.status, response.usage.output_tokens) == ("incomplete", 6)
    counted = client.responses.input_tokens.count(
        model=MODEL, input="Name a city.", instructions="Be brief."
    )
    assert counted.input_tokens == response.usage.input_tokens


def test_the_clients_stream_helper_puts_the_same_together(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "input": "Say no.", "max_output_tokens": 40, "temperature": 0}
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": City.model_json_schema()}}
    with client.responses.stream(**given, text=form) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text
    City.model_validate_json(final.output_text)


def test_answers_are_parsed_into_models(client: openai.OpenAI) -> None:
    answer = client.responses.parse(
        model=MODEL, input="Name a city.", text_format=City, max_output_tokens=40, temperature=0
    )
    assert isinstance(answer.output_parsed, City)


def test_a_conversation_with_a_call_goes_on_from_its_response(client: openai.OpenAI) -> None:
    first = ask(client, tools=[COLOURS], tool_choice="required", max_output_tokens=40)
    (called,) = first.output
    assert json.loads(called.arguments)["colour"] in ("red", "blue")
    result = {"type": "function_call_output", "call_id": called.call_id, "output": "Painted."}
    second = ask(client, input=[result], previous_response_id=first.id, tools=[COLOURS])
    assert second.output
    whole = ask(client, input=[{"role": "user", "content": "Name a city."}, called, result],
                tools=[COLOURS])  # fmt: skip
    assert whole.output_text == second.output_text
    assert whole.usage.input_tokens == second.usage.input_tokens
    assert whole.usage.input_tokens_details.cached_tokens > 0


def test_a_response_is_kept_listed_and_deleted(client: openai.OpenAI) -> None:
    made = ask(client)
    assert client.responses.retrieve(made.id) == made
    (item,) = client.responses.input_items.list(made.id).data
    assert item.model_dump()["content"][0]["text"] == "Name a city."
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_what_runs_in_the_background_is_cancelled(
    client: openai.OpenAI, server: RunningServer
) -> None:
    made = ask(client, background=True, max_output_tokens=4000, extra_body={"ignore_eos": True})
    assert made.status == "queued"
    server.wait_until(lambda: client.responses.retrieve(made.id).status == "in_progress", "running")
    ended = client.responses.cancel(made.id)
    assert ended.status == "cancelled"
    assert client.responses.retrieve(made.id) == ended


def test_events_of_the_background_are_read_again(client: openai.OpenAI, call: Call) -> None:
    events = list(ask(client, background=True, stream=True))
    response_id = events[0].response.id
    rest = client.responses.retrieve(response_id, stream=True, starting_after=4)
    assert [each.sequence_number for each in rest] == [each.sequence_number for each in events[5:]]
    reply = call(f"/v1/responses/{response_id}?stream=true")
    assert "text/event-stream" in reply.headers["content-type"]
    assert told_whole(events_of(reply.body)) == client.responses.retrieve(response_id)


def test_log_probabilities_are_those_of_a_chat(client: openai.OpenAI) -> None:
    response = ask(client, include=["message.output_text.logprobs"], top_logprobs=2)
    scored = response.output[0].content[0].logprobs
    assert "".join(each.token for each in scored) == response.output_text
    assert [len(each.top_logprobs) for each in scored] == [2] * 6


async def test_the_asynchronous_client_streams(server: RunningServer) -> None:
    async with (
        openai.AsyncOpenAI(
            base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=patience()
        ) as made,
        await made.responses.create(
            model=MODEL, input="Say yes.", max_output_tokens=3, stream=True
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.incomplete")


def test_a_prompt_that_does_not_fit_is_the_requests_fault(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="max_model_len"):
            ask(client, input="word " * 20_000, stream=stream)
    with pytest.raises(openai.BadRequestError, match="max_model_len"):
        ask(client, input="word " * 20_000, background=True)

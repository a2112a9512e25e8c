"""Clients as people use them: OpenAI's asynchronous client, its parsing with pydantic, and Hugging
Face's chat client with tools and formats."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import openai
import pytest
from heard import hear
from huggingface_hub import InferenceClient
from patience import patience
from pydantic import BaseModel, ConfigDict
from serving import RunningServer

MODEL = "small"
USER: list[Any] = [{"role": "user", "content": "Name a city and say how big it is."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "choose",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else a document may go on for ever

    name: Literal["Rome", "Oslo", "Lima"]
    size: Literal["small", "large"]


@pytest.fixture
async def asynchronous(server: RunningServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=patience()
    ) as made:
        yield made


@pytest.fixture
def hub(server: RunningServer) -> InferenceClient:
    return InferenceClient(base_url=f"http://{server.http}")


async def text_of(client: openai.AsyncOpenAI, **options: Any) -> str:
    given = {"messages": USER, "max_completion_tokens": 8, "temperature": 0, **options}
    answer: Any = await client.chat.completions.create(model=MODEL, **given)
    if not options.get("stream"):
        return answer.choices[0].message.content or ""
    return "".join(
        [chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices]
    )


async def test_many_asynchronous_requests_give_what_each_gives_alone(
    asynchronous: openai.AsyncOpenAI,
) -> None:
    wishes: list[dict[str, Any]] = [
        {}, {"seed": 3, "temperature": 1.2}, {"stop": ["."]}, {"top_p": 0.5, "seed": 1},
        {"messages": [{"role": "user", "content": "Count to five."}]},
    ]  # fmt: skip
    alone = [await text_of(asynchronous, **wish) for wish in wishes]
    together = await asyncio.gather(
        *(text_of(asynchronous, **wish, stream=number % 2 == 0)
          for number, wish in enumerate(wishes))
    )  # fmt: skip
    assert together == alone


@pytest.mark.rows("O37")
async def test_one_bad_request_among_many_fails_alone(asynchronous: openai.AsyncOpenAI) -> None:
    broken = {"response_format": {
        "type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "stsring"}},
    }}  # fmt: skip
    found = await asyncio.gather(
        *(text_of(asynchronous, **(broken if number == 3 else {})) for number in range(8)),
        return_exceptions=True,
    )
    assert [isinstance(each, openai.BadRequestError) for each in found] == [
        number == 3 for number in range(8)
    ]
    for each in found:
        if isinstance(each, openai.APIStatusError):
            hear(each.status_code, text=each.response.content)
    assert len({each for each in found if isinstance(each, str)}) == 1


def test_structured_outputs_are_parsed_into_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=USER, response_format=City, max_completion_tokens=40, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_structured_outputs_are_parsed_from_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=USER, response_format=City, max_completion_tokens=40, temperature=0
    ) as stream:
        answer = stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, City)


def test_the_clients_stream_helper_gets_a_role_once(client: openai.OpenAI) -> None:
    # It joins what it is told in pieces: a role in each delta would be one long word.
    with client.chat.completions.stream(
        model=MODEL, messages=USER, max_completion_tokens=4, temperature=0
    ) as stream:
        message = stream.until_done().current_completion_snapshot.choices[0].message
    assert message.role == "assistant"


def test_the_clients_stream_helper_sees_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=USER,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "choose"}},
        max_completion_tokens=40,
        temperature=0,
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in kinds
    calls = message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments)["colour"] in ("red", "blue")


def test_logprobs_of_choices_of_a_seed_are_their_own(client: openai.OpenAI) -> None:
    def ask() -> list[Any]:
        return client.chat.completions.create(
            model=MODEL, messages=USER, n=2, seed=11, temperature=1.3, logprobs=True,
            top_logprobs=2, max_completion_tokens=6,
        ).choices  # fmt: skip

    first, second = ask()
    for choice in (first, second):
        assert "".join(each.token for each in choice.logprobs.content) == choice.message.content
    assert first.message.content != second.message.content
    assert [choice.message.content for choice in ask()] == [
        first.message.content,
        second.message.content,
    ]


def test_hugging_faces_chat_client_calls_tools(hub: InferenceClient) -> None:
    answer = hub.chat_completion(
        USER, model=MODEL, tools=[TOOL], tool_choice="required", max_tokens=60, temperature=0
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "choose"


def test_hugging_faces_chat_client_gets_documents_of_a_schema(hub: InferenceClient) -> None:
    form: Any = {
        "type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()},
    }  # fmt: skip
    answer = hub.chat_completion(
        USER, model=MODEL, response_format=form, max_tokens=60, temperature=0
    )
    City.model_validate_json(answer.choices[0].message.content or "")


def test_hugging_faces_chat_client_gets_logprobs_and_seeds(hub: InferenceClient) -> None:
    def ask() -> Any:
        return hub.chat_completion(
            USER, model=MODEL, max_tokens=5, seed=5, temperature=1.2, logprobs=True, top_logprobs=2
        )

    first, second = ask(), ask()
    assert first.choices[0].message.content == second.choices[0].message.content
    scored = first.choices[0].logprobs.content
    assert len(scored) == first.usage.completion_tokens
    assert all(len(each.top_logprobs) == 2 for each in scored)

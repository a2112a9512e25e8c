"""Tools over HTTP as OpenAI's own client sees them, with a model that writes what the test says."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from scripted_model import ScriptedModel, served

from trivet.backends.api import Finish, GenerateRequest, Grammar

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ROME = '{"city": "Rome"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>'
USER: list[Any] = [{"role": "user", "content": "Weather in Rome?"}]


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def unknown() -> ScriptedModel:
    return ScriptedModel(tool_call_parser="")


@pytest.fixture
async def client(model: ScriptedModel, unknown: ScriptedModel) -> AsyncIterator[openai.AsyncOpenAI]:
    others = {name: ScriptedModel(tool_call_parser=name) for name in ("mistral", "llama3_json")}
    others["mistral"].pieces = ["[TOOL_CALLS]", f'[{{"name": "weather", "arguments": {ROME}}}]']
    others["llama3_json"].pieces = [f'{{"name": "weather", "parameters": {ROME}}}']
    async with (
        served({"scripted": model, "unknown": unknown, **others}) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


async def ask(client: openai.AsyncOpenAI, **options: Any) -> Any:
    given = {"model": "scripted", "messages": USER, "tools": [TOOL], **options}
    return await client.chat.completions.create(**given)


async def streamed(client: openai.AsyncOpenAI, **options: Any) -> Any:
    """What the client's own accumulation makes of the stream."""
    given = {"model": "scripted", "messages": USER, "tools": [TOOL], **options}
    async with client.chat.completions.stream(**given) as stream:
        return await stream.get_final_completion()


async def both(client: openai.AsyncOpenAI, **options: Any) -> Any:
    """The whole answer's choice, once it is sure that the stream's is the same."""
    whole = (await ask(client, **options)).choices[0]
    stream = (await streamed(client, **options)).choices[0]
    for choice in (whole, stream):
        for call in choice.message.tool_calls or ():
            call.id = "an id"
    assert (stream.message.content or "") == (whole.message.content or "")
    assert stream.finish_reason == whole.finish_reason
    told, heard = (
        [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
        for choice in (whole, stream)
    )
    assert told == heard
    return whole


async def test_call_is_told_as_a_call(client: openai.AsyncOpenAI, model: ScriptedModel) -> None:
    model.pieces = ["I look.", *CALL]
    choice = await both(client)
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "weather", ROME)


async def test_two_calls_have_two_ids_and_no_content(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = [CALL, "\n", CALL]
    choice = (await ask(client)).choices[0]
    assert choice.message.content is None
    assert len({call.id for call in choice.message.tool_calls}) == 2
    assert len((await both(client)).message.tool_calls) == 2


async def test_only_the_first_call_counts_where_one_is_wanted(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = [CALL, CALL]
    assert len((await both(client, parallel_tool_calls=False)).message.tool_calls) == 1


async def test_answer_without_calls_has_no_list_of_them(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = ["It is", " <tool", " time."]
    answer = await ask(client)
    assert "tool_calls" not in answer.choices[0].message.model_dump(exclude_unset=True)
    choice = await both(client)
    assert (choice.message.content, choice.finish_reason) == ("It is <tool time.", "stop")


async def test_call_that_was_cut_off_ends_with_length(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces, model.finish = [CALL[:60]], Finish("length")
    answer = (await ask(client)).choices[0]
    assert answer.finish_reason == "length"
    assert ROME.startswith(answer.message.tool_calls[0].function.arguments)


async def test_deltas_have_id_type_and_name_once(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = list(CALL)
    chunks = [chunk async for chunk in await ask(client, stream=True)]
    calls = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
    first, *rest = calls
    assert (first.index, first.type, first.function.name) == (0, "function", "weather")
    assert first.id
    assert len(rest) > 5
    assert all(c.id is None and c.type is None and c.function.name is None for c in rest)
    assert "".join(c.function.arguments for c in calls) == ROME
    assert [c.choices[0].finish_reason for c in chunks][-2:] == [None, "tool_calls"]


@pytest.mark.parametrize(("name", "size"), [("mistral", 9), ("llama3_json", 29)])
async def test_other_models_write_calls_otherwise(
    client: openai.AsyncOpenAI, name: str, size: int
) -> None:
    answer = (await ask(client, model=name)).choices[0]
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", ROME)
    # Mistral's templates take ids of 9 characters only.
    assert len(call.id) == size
    assert (await both(client, model=name)).message.tool_calls


async def test_marks_of_calls_are_not_skipped_and_no_grammar_forces_them(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    await ask(client)
    sampling = model.requests[0].sampling
    assert (sampling.skip_special_tokens, sampling.grammar) == (False, None)


async def test_template_gets_the_tools_and_calls_with_their_arguments_as_objects(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ROME}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "Sunny."}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    documents = [{"title": "a", "text": "b"}]
    await ask(
        client,
        messages=[*USER, answer, result],
        reasoning_effort="low",
        extra_body={"documents": documents},
    )
    (chat,) = model.rendered
    assert chat.tools == [TOOL]
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert chat.messages[2] == result
    assert chat.arguments == {"documents": documents, "reasoning_effort": "low"}


async def test_none_shows_no_tools_and_finds_no_calls(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = [CALL]
    choice = await both(client, tool_choice="none")
    assert (choice.message.content, choice.finish_reason) == (CALL, "stop")
    assert model.rendered[0].tools is None


async def test_model_whose_calls_nobody_knows_may_be_forced_but_not_be_free(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_call_parser") as refused:
        await ask(client, model="unknown")
    assert refused.value.param == "tool_choice"
    assert await ask(client, model="unknown", tool_choice="none")


def forced(request: GenerateRequest) -> Grammar:
    grammar = request.sampling.grammar
    assert grammar is not None
    return grammar


NAMED: Any = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("choice", "pieces", "reason"),
    [
        ("required", f'[{{"name": "weather", "parameters": {ROME}}}]', "tool_calls"),
        (NAMED, ROME, "stop"),
    ],
)
async def test_forced_calls_of_a_model_whose_format_is_unknown_are_json(
    client: openai.AsyncOpenAI, unknown: ScriptedModel, choice: Any, pieces: str, reason: str
) -> None:
    unknown.pieces = list(pieces)
    told = await both(client, model="unknown", tool_choice=choice)
    assert told.finish_reason == reason
    assert told.message.content is None
    assert told.message.tool_calls[0].function.arguments == ROME
    assert {forced(request).kind for request in unknown.requests} == {"json_schema"}


@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_forced_calls_are_in_the_model_s_own_format(
    client: openai.AsyncOpenAI, model: ScriptedModel, choice: Any
) -> None:
    model.pieces = list(CALL)
    told = await both(client, tool_choice=choice)
    assert told.message.tool_calls[0].function.arguments == ROME
    assert forced(model.requests[0]).kind == "calls"
    assert not model.requests[0].sampling.skip_special_tokens


async def test_forced_calls_come_behind_thoughts_that_the_prompt_has_begun(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.info = replace(model.info, reasoning_parser="think")
    model.pieces = list(CALL)
    assert len((await both(client, tool_choice="required")).message.tool_calls) == 1
    assert '"free": {}' in forced(model.requests[0]).value
    model.prompt = "user: a\nassistant: <think>\n"
    model.pieces = ["so", "</th", "ink>\n", *CALL]
    told = (await both(client, tool_choice="required")).message
    assert (told.reasoning, len(told.tool_calls)) == ("so", 1)
    assert "</think>" in forced(model.requests[-1]).value


CHANNELS = [
    "<|channel|>", "analysis", "<|message|>", "so", "<|end|>", "<|start|>", "assistant",
    "<|channel|>", "commentary", " to=", "functions.weather", "<|message|>", *ROME, "<|call|>",
]  # fmt: skip
FINAL = [*CHANNELS[:8], "final", "<|message|>", "It is", " so.", "<|return|>"]


async def test_harmony_is_told_apart_with_tools_and_without(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.info = replace(model.info, tool_call_parser="openai", reasoning_parser="openai_gptoss")
    model.pieces = CHANNELS
    choice = await both(client)
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.content, choice.message.reasoning) == (None, "so")
    assert choice.message.tool_calls[0].function.arguments == ROME
    model.pieces = FINAL
    for options in ({}, {"tools": openai.omit}):
        told = await both(client, **options)
        assert (told.message.content, told.message.reasoning) == ("It is so.", "so")
        assert not model.requests[-1].sampling.skip_special_tokens
    hidden = await ask(client, extra_body={"include_reasoning": False})
    assert "reasoning" not in hidden.choices[0].message.model_dump(exclude_unset=True)


async def test_a_model_s_own_ids_are_told(client: openai.AsyncOpenAI, model: ScriptedModel) -> None:
    model.info = replace(model.info, tool_call_parser="kimi_k2")
    call = f"<|tool_call_begin|>functions.weather:7<|tool_call_argument_begin|>{ROME}"
    model.pieces = [
        "<|tool_calls_section_begin|>", *call, "<|tool_call_end|>", "<|tool_calls_section_end|>"
    ]  # fmt: skip
    (told,) = (await ask(client)).choices[0].message.tool_calls
    assert (told.id, told.function.arguments) == ("functions.weather:7", ROME)


async def test_choices_have_their_own_calls(
    client: openai.AsyncOpenAI, model: ScriptedModel
) -> None:
    model.pieces = list(CALL)
    answer = await streamed(client, n=2)
    assert [len(c.message.tool_calls) for c in answer.choices] == [1, 1]

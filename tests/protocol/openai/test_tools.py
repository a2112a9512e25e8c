"""Tools with the real model: forced calls match their schemas, conversations with calls go on."""

import json
from typing import Any, Literal

import openai
import pytest
from llm_site import Call
from pydantic import BaseModel

MODEL = "small"
USER: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]


class Weather(BaseModel):
    """Tells the weather."""

    city: Literal["Rome", "Oslo"]
    unit: Literal["C", "F"]


class Inner(BaseModel):
    count: int


class Nested(BaseModel):
    inner: Inner
    others: list[Literal["x"]]


WEATHER = openai.pydantic_function_tool(Weather, name="weather")
NESTED = openai.pydantic_function_tool(Nested, name="nested")
BARE: Any = {"type": "function", "function": {"name": "now"}}


def ask(client: openai.OpenAI, **options: Any) -> Any:
    given = {
        "messages": USER, "tools": [WEATHER, BARE], "max_completion_tokens": 80, "temperature": 0,
        **options,
    }  # fmt: skip
    return client.chat.completions.create(model=MODEL, **given)


def test_named_function_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice={"type": "function", "function": {"name": "weather"}})
    (choice,) = choice.choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    assert choice.message.content is None
    # As OpenAI's API has it: the choice was the client's.
    assert choice.finish_reason == "stop"


def test_function_without_parameters_gets_no_arguments(client: openai.OpenAI) -> None:
    choice = ask(client, tool_choice={"type": "function", "function": {"name": "now"}}).choices[0]
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_required_gives_at_least_one_call_of_a_tool(client: openai.OpenAI, seed: int) -> None:
    answer = ask(
        client, tool_choice="required", parallel_tool_calls=False, temperature=1.5, seed=seed
    )
    choice = answer.choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    if call.function.name == "weather":
        Weather.model_validate_json(call.function.arguments)
    else:
        assert (call.function.name, json.loads(call.function.arguments)) == ("now", {})


def test_schemas_that_refer_to_parts_of_themselves_hold_among_others(client: openai.OpenAI) -> None:
    choice = ask(
        client,
        tools=[NESTED],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=300,
        logit_bias={},
        temperature=1,
        seed=3,
    ).choices[0]
    (call,) = choice.message.tool_calls
    if choice.finish_reason == "tool_calls":
        Nested.model_validate_json(call.function.arguments)
    else:
        assert call.function.arguments.startswith('{"inner": {"count": ')


def test_stream_has_the_calls_of_the_whole_answer(client: openai.OpenAI) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        options: Any = {
            "tool_choice": choice, "parallel_tool_calls": False, "max_completion_tokens": 40,
        }  # fmt: skip
        whole = ask(client, **options).choices[0]
        names, arguments = "", ""
        for chunk in ask(client, stream=True, **options):
            for call in chunk.choices[0].delta.tool_calls or ():
                names += call.function.name or ""
                arguments += call.function.arguments
            last = chunk.choices[0]
        (told,) = whole.message.tool_calls
        assert (names, arguments) == (told.function.name, told.function.arguments)
        assert last.finish_reason == whole.finish_reason


def test_the_clients_own_parsing_gives_objects(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=USER,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_completion_tokens=80,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0].function.parsed_arguments, Weather)


def test_free_choice_answers_with_text_or_calls(client: openai.OpenAI) -> None:
    choice = ask(client, max_completion_tokens=30).choices[0]
    assert bool(choice.message.content) or bool(choice.message.tool_calls)


def test_conversation_with_calls_and_results_goes_on(client: openai.OpenAI) -> None:
    function = {"name": "weather", "arguments": '{"city": "Rome", "unit": "C"}'}
    call = {"id": "c1", "type": "function", "function": function}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Sunny, 31 degrees."},
    ]
    assert ask(client, messages=messages).choices[0].message.content


def test_template_that_knows_no_tools_is_told_them_as_text(call: Call) -> None:
    given = {"id": "c1", "type": "function",
             "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}  # fmt: skip
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [given]},
        {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
        {"role": "tool", "tool_call_id": "c2", "content": "Dry."},
    ]
    reply = call("/tokenize", {"messages": messages, "tools": [BARE]}).json
    text = call("/detokenize", {"tokens": reply["tokens"]}).json["prompt"]
    assert text.startswith("<|im_start|>system\n# Tools")
    assert f"<tools>\n{json.dumps(BARE)}\n</tools>" in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>' in text
    assert (
        "<|im_start|>user\n<tool_response>\nSunny.\n</tool_response>\n"
        "<tool_response>\nDry.\n</tool_response><|im_end|>"
    ) in text


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **changes}}


def deep(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        made = {"type": "object", "properties": {"a": made}}
    return made


# Tools, choice, the error's `param`.
WRONG: list[tuple[Any, Any, str]] = [
    ("f", None, "tools"),
    (["f"], None, "tools[0]"),
    ([{"type": "function"}], None, "tools[0].function"),
    ([{"type": "magic", "function": {"name": "f"}}], None, "tools[0].type"),
    ([tool(name="")], None, "tools[0].function.name"),
    ([tool(name="a b")], None, "tools[0].function.name"),
    ([tool(name="x" * 65)], None, "tools[0].function.name"),
    ([tool(name=5)], None, "tools[0].function.name"),
    ([tool(), tool()], None, "tools[1].function.name"),
    ([tool(parameters=[])], None, "tools[0].function.parameters"),
    ([tool(parameters={"type": "string"})], None, "tools[0].function.parameters.type"),
    (
        [tool(parameters={"type": "object", "properties": {"a": {"type": "stsring"}}})],
        None,
        "tools[0].function.parameters",
    ),
    ([tool(parameters=deep(100))], None, "tools[0].function.parameters"),
    ([tool(name=f"f{i}") for i in range(10_000)], None, "tools"),
    (None, "auto", "tool_choice"),
    (None, "required", "tool_choice"),
    ([], "required", "tool_choice"),
    ([tool()], "sometimes", "tool_choice"),
    ([tool()], {"type": "function", "function": {"name": "g"}}, "tool_choice"),
    ([tool()], {"type": "function"}, "tool_choice"),
    ([tool()], {"function": {}}, "tool_choice"),
    (
        [tool(parameters={"properties": {"a": {"type": "string", "pattern": "("}}})],
        "required",
        "tools",
    ),
    (
        [tool(parameters={"properties": {"a": {"$ref": "#/$defs/none"}}})],
        {"type": "function", "function": {"name": "f"}},
        "tools",
    ),
]


@pytest.mark.rows("O20")
@pytest.mark.parametrize(("tools", "choice", "param"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_tools_are_refused_by_name(call: Call, tools: Any, choice: Any, param: str) -> None:
    body = {"model": MODEL, "messages": USER, "max_tokens": 4}
    body |= {} if tools is None else {"tools": tools}
    body |= {} if choice is None else {"tool_choice": choice}
    reply = call("/v1/chat/completions", body)
    assert reply.json["error"]["param"] == param, reply.json


# Calls of an assistant's message, the error's `param` behind messages[0].tool_calls.
WRONG_CALLS: list[tuple[Any, str]] = [
    ("x", ""),
    ([5], "[0].function.name"),
    ([{"function": {"arguments": "{}"}}], "[0].function.name"),
    ([{"function": {"name": "f"}}], "[0].function.arguments"),
    ([{"function": {"name": "f", "arguments": "{"}}], "[0].function.arguments"),
    ([{"function": {"name": "f", "arguments": "[]"}}], "[0].function.arguments"),
]


@pytest.mark.parametrize(("calls", "param"), WRONG_CALLS)
def test_wrong_calls_in_messages_are_refused_by_name(call: Call, calls: Any, param: str) -> None:
    messages = [{"role": "assistant", "content": "", "tool_calls": calls}]
    reply = call("/v1/chat/completions", {"model": MODEL, "messages": messages})
    assert reply.status == 400
    assert reply.json["error"]["param"] == f"messages[0].tool_calls{param}"


def test_two_constraints_at_once_are_refused(call: Call) -> None:
    body = {
        "model": MODEL,
        "messages": USER,
        "tools": [tool()],
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
    }
    reply = call("/v1/chat/completions", body)
    assert (reply.status, reply.json["error"]["param"]) == (400, "response_format")

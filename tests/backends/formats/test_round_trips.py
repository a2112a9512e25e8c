"""What a model's template writes for an answer with calls is read as these, however it is cut."""

import json
import random
import re
from typing import Any

import pytest
from format_templates import HARMONY, THOUGHT_TEMPLATES, TOOL_TEMPLATES

from trivet.backends.api import ChatInput
from trivet.backends.formats.pieces import Pieces
from trivet.backends.formats.reader import OutputReader
from trivet.backends.formats.registry import (
    THOUGHT_FORMATS,
    TOOL_FORMATS,
    thought_format,
    tool_format,
)
from trivet.backends.formats.thoughts import ThoughtReader
from trivet.backends.llm.text.chat import ChatTemplate

SCHEMAS: dict[str, Any] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"$ref": "#/$defs/place"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
    },
    "now": {"type": "object", "properties": {}},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
FULL = {
    "city": 'Rome "the\\eternal"\nand 5 < 6 \u00e9\U0001f30d',
    "days": -3,
    "exact": True,
    "tags": ["a", "b, c", "]"],
    "place": {"lat": 41.5, "name": "d'oro", "none": None, "no": False},
    "note": None,
}
CONVERSATIONS: list[list[tuple[str, dict[str, Any]]]] = [
    [("weather", FULL)],
    [("weather", {"city": "5"}), ("now", {}), ("weather", {"days": 12, "note": "a\n"})],
    [("now", {})],
    [("weather", {"city": "", "tags": [], "place": {}})],
]
USER = {"role": "user", "content": "Weather?"}
FORMATS = {name: name.partition(" ")[0] for name in TOOL_TEMPLATES}
Told = tuple[str, str, list[tuple[str, Any]]]
"""Thoughts, text and calls."""


def answer(template: str, message: dict[str, Any]) -> str:
    """What the model has to write for it."""
    chat = ChatTemplate(template, {})
    asked = chat.render(ChatInput([USER], tools=TOOLS))
    whole = chat.render(ChatInput([USER, message], tools=TOOLS, add_generation_prompt=False))
    assert whole.startswith(asked)
    return whole[len(asked) :].removesuffix("[end]\n")


def message_of(calls: list[tuple[str, dict[str, Any]]], text: str = "") -> dict[str, Any]:
    told = [{"function": {"name": name, "arguments": given}} for name, given in calls]
    return {"role": "assistant", "content": text, "tool_calls": told}


def read(reader: OutputReader, parts: list[str]) -> Told:
    """As a client puts a stream together."""
    pieces = Pieces()
    for part in parts:
        pieces += reader.push(part)
    pieces += reader.flush()
    thoughts, text = "", ""
    calls: list[list[str]] = []
    for piece in pieces:
        if piece.is_thought:
            thoughts += piece.text
        elif piece.index is None:
            text += piece.text
        else:
            if piece.name:
                calls.append([piece.name, ""])
            assert piece.index == len(calls) - 1
            calls[-1][1] += piece.text
    return thoughts, text, [(name, arguments) for name, arguments in calls]


def cuts(text: str) -> list[list[str]]:
    """Whole, letter by letter, and at some places."""
    chance = random.Random(text)
    found = [[text], list(text)]
    for _ in range(4):
        places = sorted(chance.choices(range(len(text) + 1), k=6))
        ends = [*places, len(text)]
        found.append([text[a:b] for a, b in zip([0, *places], ends, strict=True)])
    return found


def reader_of(name: str, tools: Any = None) -> OutputReader:
    found = tool_format(name)
    assert found is not None
    return found.reader(SCHEMAS if tools is None else tools)


@pytest.mark.parametrize("name", [*TOOL_TEMPLATES, "openai"])
def test_template_tells_its_format(name: str) -> None:
    template = HARMONY if name == "openai" else TOOL_TEMPLATES[name]
    assert ChatTemplate(template, {}).tool_call_parser == FORMATS.get(name, name)


def test_each_format_has_a_template() -> None:
    assert {*FORMATS.values(), "openai"} == {each.name for each in TOOL_FORMATS}
    assert set(THOUGHT_TEMPLATES) == {each.name for each in THOUGHT_FORMATS}


@pytest.mark.parametrize("calls", CONVERSATIONS, ids=["full", "three", "bare", "empty"])
@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_calls_come_back_however_they_are_cut(
    name: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    text = answer(TOOL_TEMPLATES[name], message_of(calls))
    for parts in cuts(text):
        thoughts, shown, told = read(reader_of(FORMATS[name]), parts)
        assert (thoughts, shown) == ("", "")
        assert [(each, json.loads(given)) for each, given in told] == calls


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_streams_tell_what_whole_answers_tell(name: str) -> None:
    text = answer(TOOL_TEMPLATES[name], message_of(CONVERSATIONS[1])) + "\nThat is all."
    whole = read(reader_of(FORMATS[name]), [text])
    assert all(read(reader_of(FORMATS[name]), parts) == whole for parts in cuts(text))
    assert whole[1].strip() == "That is all."


@pytest.mark.parametrize("name", [*FORMATS.values(), "openai"])
def test_any_mixture_of_marks_is_read_alike_and_loses_nothing(name: str) -> None:
    chance = random.Random(name)
    found = tool_format(name)
    assert found is not None
    words = [word for word in re.split(r"(<[^<>]*>|\W)", found.shown) if word]
    words += ["weather", "{", "}", '"', "\\", "\n", "x", ","]
    for _ in range(25):
        text = "".join(chance.choices(words, k=14))
        whole = read(reader_of(name), [text])
        assert read(reader_of(name), list(text)) == whole
        assert read(reader_of(name), cuts(text)[3]) == whole
        if not whole[2] and name != "openai":
            assert whole[1] == text


@pytest.mark.parametrize("name", FORMATS.values())
def test_calls_that_are_cut_off_end_without_harm(name: str) -> None:
    spelling = next(key for key, each in FORMATS.items() if each == name)
    text = answer(TOOL_TEMPLATES[spelling], message_of(CONVERSATIONS[0]))
    for size in range(0, len(text), 3):
        _, shown, told = read(reader_of(name), [text[:size]])
        # It is a call as far as it has come, or else what the model wrote.
        assert told or shown == text[:size]
        assert all(called == "weather" for called, _ in told)


@pytest.mark.parametrize("name", THOUGHT_TEMPLATES)
def test_thoughts_come_back(name: str) -> None:
    template, form = THOUGHT_TEMPLATES[name], thought_format(name)
    assert form is not None
    assert ChatTemplate(template, {}).reasoning_parser == name
    message = {"role": "assistant", "content": "yes", "reasoning_content": "so < </ it"}
    text = answer(template, message)
    for parts in cuts(text):
        assert read(ThoughtReader(form, is_thinking=False), parts)[:2] == ("so < </ it", "yes")
    assert form.is_open(f"[assistant]{form.opening}")
    assert not form.is_open(f"[assistant]{form.opening}{form.closing}")


THOUGHT = "<|channel|>analysis<|message|>so<|end|><|start|>assistant"
F = ("weather", '{"days": 1}')
# Output, thoughts, text, calls.
HARMONIES: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (f"{THOUGHT}<|channel|>final<|message|>yes<|return|>", "so", "yes", []),
    (f"{THOUGHT}<|channel|>final<|message|>ye", "so", "ye", []),
    (
        f"{THOUGHT}<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        f"{F[1]}<|call|>", "so", "", [F],
    ),
    (f" to=functions.weather<|channel|>commentary json<|message|>{F[1]}<|call|>", "", "", [F]),
    (f"<|channel|>commentary to=weather<|message|>{F[1]}<|call|>", "", "", [F]),
    (" to=functions.now<|channel|>commentary json<|message|><|call|>", "", "", [("now", "{}")]),
    (" to=functions.now<|channel|>commentary json<|message|>", "", "", [("now", "{}")]),
    (
        f"{THOUGHT}<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.weather<|message|>{F[1]}<|call|>",
        "so", "I look.", [F],
    ),
    (f"{THOUGHT}{THOUGHT}<|channel|>final<|message|>a", "so\nso", "a", []),
    ("<|channel|>final<|message|>a<|start|>assistant<|channel|>final<|message|>b", "", "a\nb", []),
    ("<|channel|>commentary to=browser.open<|message|>{}<|end|>", "", "{}", []),
    ("plain text", "", "plain text", []),
    ("to<|return|>", "", "to", []),
    ("<|channel|>ana", "", "", []),
    ("", "", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("output", "thoughts", "text", "calls"), HARMONIES)
def test_channels_of_harmony_are_told_apart_and_their_marks_nowhere(
    output: str, thoughts: str, text: str, calls: list[tuple[str, str]]
) -> None:
    for parts in cuts(output):
        assert read(reader_of("openai"), parts) == (thoughts, text, calls)


def test_harmony_without_a_message_is_shown_without_its_marks() -> None:
    head = "<|channel|>" + "x" * 600
    assert read(reader_of("openai"), [head])[1] == "x" * 600


def test_harmony_calls_nobody_where_no_tools_are_offered() -> None:
    output = f"<|channel|>commentary to=functions.weather<|message|>{F[1]}<|call|>"
    assert read(reader_of("openai", {}), [output]) == ("", F[1], [])


def test_template_drops_the_thoughts_of_turns_that_are_over() -> None:
    chat = ChatTemplate(HARMONY, {})
    call = {**message_of([("now", {})]), "reasoning": "secret"}
    result = {"role": "tool", "content": "noon"}
    going_on = chat.render(ChatInput([USER, call, result], tools=TOOLS))
    assert "<|channel|>analysis<|message|>secret<|end|>" in going_on
    final = {"role": "assistant", "content": "It is noon.", "reasoning": "secret"}
    over = chat.render(ChatInput([USER, call, result, final, USER], tools=TOOLS))
    assert "secret" not in over


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[weather(city='it\\'s', days=1)]", {"city": "it's", "days": 1}),
        ('[weather(city="\\u00e9\\n", exact=True, note=None)]',
         {"city": "\u00e9\n", "exact": True, "note": None}),
        ("[weather(tags=('a', 'b',), place={'lat': 1.5})]",
         {"tags": ["a", "b"], "place": {"lat": 1.5}}),
    ],
)  # fmt: skip
def test_python_s_own_spellings_are_understood(text: str, told: dict[str, Any]) -> None:
    for parts in cuts(text):
        ((_, given),) = read(reader_of("pythonic"), parts)[2]
        assert json.loads(given) == told


BOB = '{"name": "Bob", "arguments": {"days": 1}}'
KNOWN = '{"name": "weather", "arguments": {"days": 1}}'


@pytest.mark.parametrize(
    ("text", "shown", "called"),
    [
        (BOB, BOB, []),
        ('{"arguments": {}, "name": "Bob"}', '{"arguments": {}, "name": "Bob"}', []),
        (f"{KNOWN}; {BOB}", f"; {BOB}", ["weather"]),
        (f"<|python_tag|>{BOB}", "", ["Bob"]),
    ],
    ids=["bare", "name last", "second", "marked"],
)
def test_json_without_marks_calls_tools_only(text: str, shown: str, called: list[str]) -> None:
    for parts in cuts(text):
        _, told_text, told = read(reader_of("llama3_json"), parts)
        assert (told_text, [name for name, _ in told]) == (shown, called)


def test_json_in_a_fence_is_a_call_if_its_function_is_known() -> None:
    for parts in cuts(f"```json\n{KNOWN}\n```"):
        assert read(reader_of("llama3_json"), parts) == ("", "", [("weather", '{"days": 1}')])
    for text in (f"```json\n{BOB}\n```", "```json\n[1]\n```", "```\nx\n```", "``"):
        assert all(read(reader_of("llama3_json"), parts) == ("", text, []) for parts in cuts(text))


COHERE = "<|START_ACTION|>[\n    {CALL}\n]<|END_ACTION|>"
ACTION = '{"tool_call_id": "0", "tool_name": "weather", "parameters": {"days": 1}}'
ANSWER = "<|START_RESPONSE|>It rains.<|END_RESPONSE|>"


@pytest.mark.parametrize(
    ("output", "thoughts", "text", "calls"),
    [
        (COHERE.replace("{CALL}", ACTION), "so", "", [F]),
        (ANSWER, "so", "It rains.", []),
        (ANSWER.replace("RESPONSE", "TEXT"), "so", "It rains.", []),
        ("It rains.", "so", "It rains.", []),
        (COHERE.replace("{CALL}", "5"), "so", COHERE.replace("{CALL}", "5"), []),
    ],
)
def test_cohere_s_marks_around_thoughts_and_answers_are_told_nowhere(
    output: str, thoughts: str, text: str, calls: list[tuple[str, str]]
) -> None:
    for parts in cuts(f"<|START_THINKING|>so<|END_THINKING|>{output}"):
        assert read(reader_of("cohere_command3"), parts) == (thoughts, text, calls)
    for parts in cuts(output):
        assert read(reader_of("cohere_command3"), parts) == ("", text, calls)


def test_command_r_calls_the_client_s_functions_only() -> None:
    text = 'Action: ```json\n[{"tool_name": "directly_answer", "parameters": {}}]\n```'
    for parts in cuts(text):
        assert read(reader_of("command_r"), parts) == ("", text, [])


@pytest.mark.parametrize(
    ("name", "text", "shown", "given"),
    [
        ("pythonic", '[weather(city="x", days=foo)]', "foo)]", '{"city": "x", "days": '),
        ("pythonic", "[weather(tags=[1, foo])]", "foo])]", '{"tags": [1, '),
        ("pythonic", "[weather(place={foo: 1})]", "foo: 1})]", '{"place": {'),
        ("pythonic", "[weather(days=1, so it is)]", "so it is)]", '{"days": 1'),
        ("pythonic", "[weather(days=12", "", '{"days": 12'),
        ("pythonic", "[weather(place={'la", "", '{"place": {"la'),
        ("pythonic", "[weather(days=1, no", "", '{"days": 1, "no'),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"days": 1</tool_call>', "",
         '{"days": 1}'),
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"tags": ["<"\n</tool_call>', "",
         '{"tags": ["<"\n]}'),
        ("hermes", '<tool_call>[{"name": "weather", "arguments": {"days": 1</tool_call>', "",
         '{"days": 1}'),
        ("gemma4", "<|tool_call>call:weather{days:12", "", '{"days": 12'),
        ("glm45", "<tool_call>weather\n<arg_key>days</arg_key>\n<arg_value>12", "",
         '{"days": 12'),
        ("glm45", "<tool_call>weather\n<arg_key>days</arg_key>\n<arg_value>", "", '{"days": '),
    ],
)  # fmt: skip
def test_what_breaks_a_call_off_is_not_lost(name: str, text: str, shown: str, given: str) -> None:
    for parts in cuts(text):
        assert read(reader_of(name), parts) == ("", shown, [("weather", given)])


@pytest.mark.parametrize("text", ["[weather]", "[1, 2]", "[link](http://x)", "[other(a=1)]", "[a"])
def test_brackets_that_are_no_calls_are_text(text: str) -> None:
    assert read(reader_of("pythonic"), [text]) == ("", text, [])


@pytest.mark.parametrize(
    ("kind", "written", "told"),
    [
        ("boolean", "True", True), ("boolean", "maybe", "maybe"), ("integer", "5", 5),
        ("integer", "five", "five"), ("number", "1e3", 1000.0), ("array", "['a']", ["a"]),
        ("object", '{"a": NaN}', '{"a": NaN}'), ("string", "null", "null"), (None, "[1]", [1]),
        (None, "so", "so"), (["string", "null"], "None", None), (["string", "null"], "5", "5"),
    ],
)  # fmt: skip
def test_arguments_are_of_their_schema_s_types(kind: Any, written: str, told: Any) -> None:
    schema = {} if kind is None else {"type": kind}
    tools = {"f": {"type": "object", "properties": {"a": schema}}}
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{written}\n</parameter>\n</function>\n"
    ((_, given),) = read(reader_of("qwen3_coder", tools), [text])[2]
    assert json.loads(given) == {"a": told}


def test_texts_among_arguments_go_out_before_they_end() -> None:
    reader = reader_of("qwen3_coder")
    reader.push("<tool_call>\n<function=weather>\n<parameter=city>\nNew")
    assert [piece.text for piece in reader.push(" York")] == [" York"]


def test_a_model_s_own_ids_are_kept_unless_they_come_twice() -> None:
    text = answer(TOOL_TEMPLATES["kimi_k2"], message_of(CONVERSATIONS[1])).replace(":2<", ":0<")
    pieces = [*reader_of("kimi_k2").push(text)]
    assert [piece.id for piece in pieces if piece.name] == [
        "functions.weather:0", "functions.now:1", ""
    ]  # fmt: skip

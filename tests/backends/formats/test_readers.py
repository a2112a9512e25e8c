"""Calls of tools in outputs: each way to write them, cut in every way; what is none stays text."""

import json
import random
import time
from typing import Any

import pytest
from patience import patience

from trivet.backends.formats.pieces import Pieces
from trivet.backends.formats.plain_json import ListedCalls
from trivet.backends.formats.reader import OutputReader
from trivet.backends.formats.registry import TOOL_FORMATS, tool_format

Call = tuple[str, str]
W = '{"name": "weather", "arguments": {"city": "Rome", "days": [1, 2]}}'
WEATHER = ("weather", '{"city": "Rome", "days": [1, 2]}')
TIME = ("time", "{}")
TRICKY = '{"a": "}]\\" \\\\", "b": {"c": "</tool_call>"}}'

# Style, output, text, calls.
CASES: list[tuple[str, str, str, list[Call]]] = [
    ("hermes", "No tool is needed.", "No tool is needed.", []),
    ("hermes", " \n", " \n", []),
    ("hermes", "a < b <tool", "a < b <tool", []),
    ("hermes", f"<tool_call>\n{W}\n</tool_call>", "", [WEATHER]),
    ("hermes", f"\n\n<tool_call>{W}</tool_call>\n", "", [WEATHER]),
    ("hermes", f"I look.<tool_call>\n{W}\n</tool_call>", "I look.", [WEATHER]),
    (
        "hermes",
        f'<tool_call>{W}</tool_call>\n<tool_call>{{"name": "time"}}</tool_call>',
        "",
        [WEATHER, TIME],
    ),
    ("hermes", f"<tool_call>[{W}, {W}]</tool_call> Done.", " Done.", [WEATHER, WEATHER]),
    ("hermes", f"<tool_call>{W}", "", [WEATHER]),
    ("hermes", f"<tool_call>\n{W}}}\n</tool_call>", "", [WEATHER]),
    ("hermes", f"<tool_call>\n{W[:-1]}\n</tool_call>\n<tool_call>{W}</tool_call>", "",
     [WEATHER, WEATHER]),
    ("hermes", f"<tool_call>{W}}} so", "} so", [WEATHER]),
    ("hermes", f"<tool_call>{W}, {{</tool_call>", ", {</tool_call>", [WEATHER]),
    ("hermes", f'<tool_call>{{"arguments": {TRICKY}, "name": "f"}}</tool_call>', "",
     [("f", TRICKY)]),
    ("hermes", f'<tool_call>{{"name": "f", "arguments": {TRICKY}}}</tool_call>', "",
     [("f", TRICKY)]),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "",
     [("f", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', "", [("f", "{}")]),
    ("hermes", '<tool_call>{"id": 7, "name": "f\\u00fc", "parameters": {}}</tool_call>', "",
     [("f\u00fc", "{}")]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1', "", [("f", '{"a": 1')]),
    ("hermes", "<tool_call>nonsense</tool_call>!", "<tool_call>nonsense</tool_call>!", []),
    ("hermes", '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
    ("hermes", '<tool_call>{"nam', '<tool_call>{"nam', []),
    ("hermes", "<tool_call>{}</tool_call>", "<tool_call>{}</tool_call>", []),
    ("mistral", f"[TOOL_CALLS] [{W}]", "", [WEATHER]),
    ("mistral", f"[TOOL_CALLS][{W}, {W}]", "", [WEATHER, WEATHER]),
    ("mistral", 'Well.[TOOL_CALLS]weather{"city": "Rome", "days": [1, 2]}', "Well.", [WEATHER]),
    ("mistral", '[TOOL_CALLS]f[CALL_ID]abc123456[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}', "",
     [("f", '{"a": 1}'), ("g", "{}")]),
    ("mistral", "[TOOL_CAL", "[TOOL_CAL", []),
    ("llama3_json", '{"name": "weather", "parameters": {"city": "Rome", "days": [1, 2]}}', "",
     [WEATHER]),
    ("llama3_json", f"<|python_tag|>{W}; {W}", "", [WEATHER, WEATHER]),
    ("llama3_json", f" \n{W}", "", [WEATHER]),
    ("llama3_json", '{"name": "Bob", "age": 5}', '{"name": "Bob", "age": 5}', []),
    ("llama3_json", "{not json} at all", "{not json} at all", []),
    ("llama3_json", f"It is {W}", f"It is {W}", []),
    ("llama3_json", "<|python", "<|python", []),
    ("listed", f"[{W}, {W}]", "", [WEATHER, WEATHER]),
]  # fmt: skip


def reader(style: str) -> OutputReader:
    if style == "listed":
        return ListedCalls({})
    found = tool_format(style)
    assert found is not None
    return found.reader({})


def parsed(style: str, parts: list[str]) -> tuple[str, list[Call]]:
    """Text and calls, put together as a client would from a stream."""
    mine = reader(style)
    pieces: Pieces = Pieces()
    for part in parts:
        pieces += mine.push(part)
    pieces += mine.flush()
    text, calls = "", []
    for piece in pieces:
        if piece.index is None:
            text += piece.text
            continue
        if piece.name:
            calls.append([piece.name, ""])
        assert piece.index == len(calls) - 1
        calls[-1][1] += piece.text
    return text, [(name, arguments) for name, arguments in calls]


@pytest.mark.parametrize(("style", "output", "text", "calls"), CASES)
def test_output_is_taken_apart(style: str, output: str, text: str, calls: list[Call]) -> None:
    assert parsed(style, [output]) == (text, calls)


@pytest.mark.parametrize(("style", "output", "text", "calls"), CASES)
def test_every_cut_gives_the_same(style: str, output: str, text: str, calls: list[Call]) -> None:
    assert parsed(style, list(output)) == (text, calls)
    for place in range(len(output)):
        assert parsed(style, [output[:place], output[place:]]) == (text, calls)


def test_any_cut_of_any_mixture_gives_the_same() -> None:
    chance = random.Random(4)
    words = ["<tool_call>", "</tool_call>", W, "{", "}", '"name":', '"', "\\", "[", " ", "a", ","]
    for _ in range(500):
        output = "".join(chance.choices(words, k=12))
        for style in ("hermes", "mistral", "llama3_json"):
            parts, rest = [], output
            while rest:
                size = chance.randint(1, 9)
                parts.append(rest[:size])
                rest = rest[size:]
            assert parsed(style, parts) == parsed(style, [output])


def test_arguments_go_out_before_they_end() -> None:
    mine = reader("hermes")
    mine.push('<tool_call>{"name": "f", "arguments": {"text": "')
    assert [piece.text for piece in mine.push("long ")] == ["long "]


@pytest.mark.rows("O22")
@pytest.mark.parametrize(
    "text",
    ["[A(" * 4_000, "<tool_call>[" * 2_000, "{" * 9_000, "<tool_call>{}" * 1_000,
     '<tool_call>{"' + "\\" * 9_000, " " * 9_000, "[TOOL_CALLS]" * 1_000],
    ids=lambda text: text[:14],
)  # fmt: skip
def test_outputs_meant_to_hurt_take_linear_time(text: str) -> None:
    started_s = time.monotonic()
    for style in (each.name for each in TOOL_FORMATS):
        parsed(style, [text[i : i + 8] for i in range(0, len(text), 8)])
    assert time.monotonic() - started_s < patience(10)


@pytest.mark.more_of("O21")
def test_arguments_are_text_and_nothing_runs_them() -> None:
    evil: dict[str, Any] = {"a": "__import__('os').system('true')"}
    output = f'<tool_call>{{"name": "f", "arguments": {json.dumps(evil)}}}</tool_call>'
    assert parsed("hermes", [output]) == ("", [("f", json.dumps(evil))])

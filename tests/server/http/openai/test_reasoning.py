"""Thoughts are told apart from answers, however the text is cut."""

import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import ScriptedModel, served

from trivet.backends.formats.thoughts import THINK, ThoughtReader

TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def split(pieces: list[str], *, is_thinking: bool = False) -> tuple[str, str]:
    """Thoughts and answer."""
    reader = ThoughtReader(THINK, is_thinking=is_thinking)
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.flush()
    thoughts, answer = (
        "".join(part.text for part in parts if part.is_thought is wanted)
        for wanted in (True, False)
    )
    return thoughts, answer


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>a<b</think>c", "a<b", "c"),
        ("\n<think>a</think>", "a", ""),
        ("<think>a</thin", "a</thin", ""),
        ("a <think>b</think>", "", "a <think>b</think>"),
        ("<thing>", "", "<thing>"),
        ("<thi", "", "<thi"),
        ("", "", ""),
    ],
)
def test_thoughts_go_from_mark_to_mark_at_the_beginning(
    text: str, thoughts: str, answer: str
) -> None:
    assert split([text]) == split(list(text)) == (thoughts, answer)


def test_a_prompt_may_have_begun_them() -> None:
    assert split(["a</th", "ink>b"], is_thinking=True) == ("a", "b")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "a", "</", "think>", "\n"])),
    st.data(),
)
def test_no_cut_changes_the_parts(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    cut = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert split(cut) == split([text])


def thinking(*pieces: str) -> ScriptedModel:
    model = ScriptedModel()
    model.info = replace(model.info, reasoning_parser="think")
    model.pieces = pieces
    return model


async def asked(model: ScriptedModel, **fields: Any) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], **fields}
    async with (
        served({"m": model}) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def message(model: ScriptedModel, **fields: Any) -> Any:
    return json.loads(await asked(model, **fields))["choices"][0]["message"]


async def test_messages_have_thoughts_and_answers_apart() -> None:
    told = await message(thinking("<thi", "nk>so</th", "ink>", "yes"))
    assert (told["reasoning"], told["content"]) == ("so", "yes")
    told = await message(thinking("<think>so</think>", "yes"), include_reasoning=False)
    assert "reasoning" not in told
    assert told["content"] == "yes"


async def test_streams_have_them_apart_too() -> None:
    text = await asked(thinking("<thi", "nk>so</th", "ink>", "yes"), stream=True)
    events = [line.removeprefix("data: ") for line in text.split("\n\n")]
    deltas = [json.loads(each)["choices"][0]["delta"] for each in events if each.startswith("{")]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "so"
    assert "".join(delta.get("content", "") for delta in deltas) == "yes"


async def test_calls_come_behind_thoughts() -> None:
    told = await message(thinking("<think>", CALL, "</think>", CALL), tools=TOOLS)
    assert told["reasoning"] == CALL
    assert [call["function"]["name"] for call in told["tool_calls"]] == ["f"]


async def test_what_a_grammar_forces_and_what_other_models_write_has_no_thoughts() -> None:
    text = "<think>so</think>yes"
    forced = {"structured_outputs": {"choice": [text]}}
    assert (await message(thinking(text), **forced))["content"] == text
    model = ScriptedModel()
    model.pieces = (text,)
    assert (await message(model))["content"] == text

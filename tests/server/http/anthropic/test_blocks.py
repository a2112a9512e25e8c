"""Outputs as blocks of content, however they were cut."""

import json
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from trivet.backends.formats.marked_json import HERMES
from trivet.backends.formats.thoughts import THINK, ThoughtReader
from trivet.server.http.anthropic.blocks import Blocks, Event, whole_content
from trivet.server.http.openai.chat_tools import ChoiceCalls, Telling

TELLING = Telling(lambda: "c1", in_parallel=True, is_named=False, tells_thoughts=True)
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
CALL = '<tool_call>{"name": "f", "arguments": {"a": [1, 2]}}</tool_call>'
CUT = '<tool_call>{"name": "f", "arguments": {"a": [1, '


def events(pieces: list[str], *, eager: frozenset[str] = frozenset()) -> tuple[list[Event], Blocks]:
    reader = ThoughtReader(THINK, HERMES.reader({}), is_thinking=False)
    blocks = Blocks(ChoiceCalls(reader, TELLING), eager=eager, tells_thoughts=True)
    *others, last = pieces or [""]
    found = [each for piece in others for each in blocks.events(piece, is_last=False)]
    found += blocks.events(last, is_last=True)
    for each in found:
        EVENTS.validate_python(each, strict=True)
    return found, blocks


def content(text: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in block.items() if key != "signature"}
        for block in whole_content(events([text])[0])
    ]


def test_thoughts_texts_and_calls_are_blocks_of_their_own() -> None:
    assert content(f"<think>hm</think>well{CALL}") == [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "well"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": [1, 2]}},
    ]


def test_half_a_call_is_text_and_none_that_a_client_would_run() -> None:
    found, blocks = events([CUT])
    assert whole_content(found) == [
        {"type": "text", "text": '{"name": "f", "arguments": {"a": [1, '}
    ]
    assert not blocks.has_called


def test_a_list_is_no_input() -> None:
    written = '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'
    assert content(written)[0]["type"] == "text"


def test_an_eager_tool_s_input_is_told_as_it_comes() -> None:
    found, blocks = events(list(CUT), eager=frozenset({"f"}))
    deltas = [each["delta"] for each in found if each["type"] == "content_block_delta"]
    assert len(deltas) > 3
    assert "".join(each["partial_json"] for each in deltas) == '{"a": [1, '
    assert blocks.has_called


def test_thoughts_that_are_not_to_be_told_are_still_signed() -> None:
    parts = ChoiceCalls(ThoughtReader(THINK, is_thinking=True), TELLING)
    blocks = Blocks(parts, eager=frozenset(), tells_thoughts=False)
    thought, answer = whole_content(blocks.events("hm</think>a", is_last=True))
    assert (thought["thinking"], len(thought["signature"])) == ("", 64)
    assert answer["text"] == "a"


def test_an_empty_output_has_no_blocks() -> None:
    assert events([""])[0] == []


@given(
    st.lists(st.sampled_from(["<think>", "</think>", CALL, CUT, "a", " ", "<tool_call>", '"}'])),
    st.data(),
)
def test_no_cut_changes_the_blocks(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    cut = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    whole = whole_content(events([text])[0])
    assert whole_content(events(cut)[0]) == whole
    Message.model_validate(
        {
            "id": "m", "type": "message", "role": "assistant", "model": "m", "content": whole,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )  # fmt: skip


@given(st.lists(st.sampled_from(["<think>", "</think>", CALL, CUT, "a"])))
def test_blocks_come_one_after_the_other_and_all_are_closed(pieces: list[str]) -> None:
    open_block, num_closed = None, 0
    for each in events(pieces)[0]:
        assert each["index"] == num_closed
        if each["type"] == "content_block_start":
            assert open_block is None
            open_block = each["content_block"]["type"]
        elif each["type"] == "content_block_delta":
            assert open_block is not None
            json.dumps(each)
        else:
            assert open_block is not None
            open_block, num_closed = None, num_closed + 1
    assert open_block is None

"""Items and tools of responses as chats have them."""

from typing import Any

from trivet.server.http.openai.responses.items import Transcript, kept
from trivet.server.http.openai.responses.tools import chat_choice, chat_tools


def thought(*texts: str) -> dict[str, Any]:
    parts = [{"type": "reasoning_text", "text": text} for text in texts]
    return {"type": "reasoning", "summary": [], "content": parts}


def test_thoughts_of_all_items_before_a_message_are_its_own() -> None:
    transcript = Transcript()
    said = {"role": "assistant", "content": "d"}
    for item in (thought("a", "", "b"), thought("c"), said, thought(""), said):
        transcript.add("input", item)
    assert transcript.messages == [{**said, "reasoning_content": "abc"}, said]


def test_allowed_tools_are_those_of_these_names() -> None:
    functions = [{"type": "function", "name": name} for name in ("a", "b", ["c"], "d")]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "d"}, {"name": "a"}]}
    mode, left = chat_choice(choice, chat_tools(functions))
    assert mode == "auto"
    assert [tool["function"]["name"] for tool in left] == ["a", "d"]


def test_of_an_item_what_the_api_knows_is_kept() -> None:
    more = {"more": "x" * 1000, "created_by": {"a": 1}}
    text = {"type": "output_text", "text": "a", "annotations": []}
    shown = {"type": "input_image", "image_url": "data:,", "detail": "low"}
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "assistant", "content": [text], "phase": "final_answer"},
        {"type": "message", "role": "user", "content": [shown], "status": "incomplete"},
        {"type": "reasoning", "summary": [], "content": thought("b")["content"]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{**text, **more}]},
    ]
    for number, item in enumerate(items):
        given = {"id": f"i{number}", **item, **more}
        for name in ("content", "output"):
            if name in given:
                given[name] = [{**part, **more} for part in given[name]]
        expected = {"id": f"i{number}", **item}
        if name == "output" and "output" in item:
            expected["output"] = [text]
        if item["type"] != "reasoning":
            expected = {"status": "completed", **expected}
        assert kept(given) == expected
    assert kept({"role": "user", "content": "hi", "id": 3})["id"].startswith("msg_")

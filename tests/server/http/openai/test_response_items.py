"""Items and tools of responses as chats have them."""

from typing import Any

from trivet.server.http.openai.responses.items import Transcript
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

"""Anthropic's turns as messages of chats."""

from typing import Any

import pytest

from trivet.backends.api import InvalidRequest, ServingError
from trivet.server.http.anthropic.fields import MessageFields, SystemBlock
from trivet.server.http.anthropic.turns import messages_of

CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "4"}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def read(*turns: tuple[str, Any], system: Any = None) -> list[dict[str, Any]]:
    made = [MessageFields.model_validate({"role": role, "content": c}) for role, c in turns]
    return messages_of(system, made)


def test_texts_and_blocks_of_texts_are_messages() -> None:
    system = [SystemBlock(type="text", text="be"), SystemBlock(type="text", text="brief")]
    found = read(("user", "a"), ("assistant", [text("b")]), ("user", [text("c")]), system=system)
    assert [(each["role"], each["content"]) for each in found] == [
        ("system", "be\nbrief"), ("user", "a"), ("assistant", "b"), ("user", "c"),
    ]  # fmt: skip


def test_what_is_for_anthropics_server_is_not_for_the_model() -> None:
    texts = ("x-anthropic-billing-header: cc_version=1; cch=5f3", "be")
    system = [SystemBlock(type="text", text=text) for text in texts]
    assert read(("user", "a"), system=system)[0]["content"] == "be"


def test_neighbours_of_one_role_are_one_turn() -> None:
    found = read(("user", "a"), ("user", [text("b"), text("c")]), ("assistant", "d"))
    assert [each["content"] for each in found] == ["a\nb\nc", "d"]


def test_many_neighbours_keep_their_order_their_images_and_their_calls() -> None:
    calls = [{**CALL, "id": f"c{number}"} for number in range(1000)]
    results = [{**RESULT, "tool_use_id": each["id"]} for each in calls]
    image = {"type": "image", "source": PIXEL}
    asked = [("user", content) for content in ("a", "b", [image], "c", "d")]
    called = [("assistant", [text("e"), call]) for call in calls]
    user, assistant, *answers = read(*asked, *called, ("user", results))
    assert [part.get("text") for part in user["content"]] == ["a\nb", None, "c", "d"]
    assert assistant["content"] == "\n".join("e" * 1000)
    assert [call["id"] for call in assistant["tool_calls"]] == [each["id"] for each in calls]
    assert [each["tool_call_id"] for each in answers] == [each["id"] for each in calls]


def test_calls_and_results_are_those_of_chats() -> None:
    found = read(
        ("user", "a"),
        ("assistant", [text("well"), CALL]),
        ("user", [text("and?"), {**RESULT, "content": [text("4"), text("5")]}]),
    )
    assert found[1:] == [
        {"role": "assistant", "content": "well", "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "c1", "content": "4\n5"},
        {"role": "user", "content": "and?"},
    ]


def test_a_result_that_is_an_error_says_so() -> None:
    found = read(("user", "a"), ("assistant", [CALL]), ("user", [{**RESULT, "is_error": True}]))
    assert found[-1]["content"] == "Error: 4"


def test_thoughts_come_back_to_the_template() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    found = read(("user", "a"), ("assistant", [thought, hidden, text("b")]), ("user", "c"))
    assert found[1] == {"role": "assistant", "content": "b", "reasoning": "hm"}


FETCHED = {"type": "url", "url": "https://example.org/a.png"}
DEEP: dict[str, Any] = {}
for _ in range(300):
    DEEP = {"a": DEEP}
# Turns, where the error says that it is.
WRONG: list[tuple[list[tuple[str, Any]], str]] = [
    ([("user", [{"text": "a"}])], "messages[0].content[0].type"),
    ([("user", [{"type": "document"}])], "messages[0].content[0].type"),
    ([("user", [{"type": "tool_use"}])], "messages[0].content[0].type"),
    ([("user", "a"), ("assistant", [{"type": "image"}])], "messages[1].content[0].type"),
    ([("user", [{"type": "text", "text": 5}])], "messages[0].content[0].text"),
    ([("user", [{"type": "image"}])], "messages[0].content[0].source"),
    ([("user", [{"type": "image", "source": {"type": "file"}}])], "messages[0].content[0].source"),
    ([("user", [{"type": "image", "source": {"type": "url"}}])], "content[0].source.url"),
    ([("user", "a"), ("user", [{"type": "image", "source": FETCHED}])], "messages[1].content[0]"),
    ([("assistant", [{**CALL, "input": "{}"}])], "messages[0].content[0].input"),
    ([("assistant", [{**CALL, "input": DEEP}])], "messages[0].content[0].input"),
    ([("user", [{**RESULT, "content": 5}])], "messages[0].content[0].content"),
    ([("user", [{**RESULT, "content": [{"type": "x"}]}])], "content[0].content[0].type"),
    ([("user", [RESULT])], "messages"),
    ([("user", "a"), ("assistant", [CALL]), ("user", "b")], "messages"),
    ([("user", "a"), ("assistant", [CALL])], "messages"),
    ([("user", "a"), ("assistant", [CALL]), ("user", [RESULT, RESULT])], "messages"),
]


@pytest.mark.parametrize(("turns", "place"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_turns_are_refused_where_they_are(turns: list[tuple[str, Any]], place: str) -> None:
    with pytest.raises(ServingError) as caught:
        read(*turns)
    assert place in caught.value.message.partition(": ")[0]


def test_an_image_goes_where_chats_take_them() -> None:
    (found,) = read(("user", [{"type": "image", "source": PIXEL}]))
    address = {"url": "data:image/png;base64,AAAA"}
    assert found["content"] == [{"type": "image_url", "image_url": address}]


def test_an_unanswered_call_is_named() -> None:
    with pytest.raises(InvalidRequest, match="'c1' has no tool_result"):
        read(("user", "a"), ("assistant", [CALL]))

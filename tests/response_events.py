"""Streams of responses, held to the types of OpenAI's own client."""

import json
from collections.abc import Sequence
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import BaseModel, TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_RESPONSE = TypeAdapter(Response)
_ITEMS = TypeAdapter(ResponseItemList)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_MORE = {
    # The API has them, the client's types do not (yet).
    "store", "bytes",
}  # fmt: skip
_TEXTS = ("output_text", "reasoning_text", "reasoning_summary_text", "function_call_arguments")


def response_of(body: bytes | str) -> Response:
    """A document that is as the client's types say, and holds nothing else."""
    made: Response = _strict(_RESPONSE, body)
    return made


def items_of(body: bytes | str) -> ResponseItemList:
    """The same of a list of items."""
    made: ResponseItemList = _strict(_ITEMS, body)
    return made


def events_of(body: bytes | str) -> list[Any]:
    """The events of a stream: each as the client's types say, numbered without a gap, one end."""
    text = body if isinstance(body, str) else body.decode()
    *frames, last = text.split("\n\n")
    assert last == ""
    events = []
    for frame in frames:
        if frame == ": keep-alive":
            continue
        name, data = frame.split("\n")
        event = _strict(_EVENT, data.removeprefix("data: "))
        assert name == f"event: {event.type}"
        events.append(event)
    first = events[0].sequence_number if events else 0
    assert [each.sequence_number for each in events] == list(range(first, first + len(events)))
    return events


def told_whole(events: Sequence[Any]) -> Response:
    """The response of a whole stream, once it is sure that the events tell nothing else."""
    kinds = [each.type for each in events]
    assert kinds[0] == "response.created"
    assert [kind for kind in kinds if kind in TERMINAL] == kinds[-1:]
    response: Response = events[-1].response
    assert {each.response.id for each in events if hasattr(each, "response")} == {response.id}
    added = _by_place(events, "response.output_item.added")
    done = _by_place(events, "response.output_item.done")
    assert list(added) == list(done) == list(range(len(response.output)))
    assert [each.item for each in done.values()] == response.output
    for place, item in enumerate(response.output):
        assert added[place].item.id == item.id
        _check_item(place, item, events)
    return response


def _check_item(place: int, item: Any, events: Sequence[Any]) -> None:
    mine = [each for each in events if getattr(each, "output_index", None) == place]
    assert mine[0].type == "response.output_item.added"
    assert mine[-1].type == "response.output_item.done"
    assert {each.item_id for each in mine[1:-1]} == {item.id}
    assert len({each.type for each in mine if each.type.endswith("delta")}) <= 1
    for name in _TEXTS:
        deltas = [each.delta for each in mine if each.type == f"response.{name}.delta"]
        for each in mine:
            if each.type == f"response.{name}.done":
                whole = each.arguments if name == "function_call_arguments" else each.text
                assert "".join(deltas) == whole == _text_of(item)


def _text_of(item: Any) -> str:
    if item.type == "function_call":
        return str(item.arguments)
    (part,) = item.summary or item.content if item.type == "reasoning" else item.content
    return str(part.text)


def _by_place(events: Sequence[Any], kind: str) -> dict[int, Any]:
    return {each.output_index: each for each in events if each.type == kind}


def _strict(adapter: TypeAdapter[Any], body: bytes | str) -> Any:
    made = adapter.validate_json(body, strict=True)
    unknown = sorted(_unknown(made) - _MORE)
    assert unknown == [], (unknown, json.loads(body))
    return made


def _unknown(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for each in value for name in _unknown(each)}
    if not isinstance(value, BaseModel):
        return set()
    found = set(value.model_extra or ())
    return found | {name for _, each in value if each is not None for name in _unknown(each)}

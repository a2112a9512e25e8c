"""Items of an output as they come: what they are so far, and the events that tell of them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trivet.server.http.openai.responses.items import item_id

Event = dict[str, Any]
"""Without its sequence number."""
Scored = Sequence[dict[str, Any]]
"""Log probabilities of tokens, as the API has them."""
NOTHING_SCORED: Scored = ()


class OpenItem(Protocol):
    """An item that is being written."""

    item: dict[str, Any]

    def begin(self) -> list[Event]:
        """The events before its text."""

    def add(self, text: str, scored: Scored) -> list[Event]:
        """More of its text."""

    def end(self, status: str) -> list[Event]:
        """The events behind it; `status`: completed or incomplete."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the events of a text are called."""

    kind: str
    """The type of the part that holds it."""
    owner: str
    """Where an item has its parts."""
    index: str
    part: str
    text: str


_ANSWER = Words(
    "output_text", "content", "content_index", "response.content_part", "response.output_text"
)
_THOUGHT = Words(
    "reasoning_text", "content", "content_index", "response.content_part", "response.reasoning_text"
)
_SUMMARY = Words(
    "summary_text",
    "summary",
    "summary_index",
    "response.reasoning_summary_part",
    "response.reasoning_summary_text",
)


class TextItem:
    """An item of one part with a text: a message, or thoughts."""

    def __init__(self, item: dict[str, Any], place: int, words: Words) -> None:
        self.item = item
        self._place = place
        self._words = words
        self._texts: list[str] = []
        self._scored: list[dict[str, Any]] = []

    @property
    def _is_answer(self) -> bool:
        return self._words is _ANSWER

    def begin(self) -> list[Event]:
        """See OpenItem."""
        added = _item_event("added", self._place, {**self.item, self._words.owner: []})
        return [added, self._event(f"{self._words.part}.added", part=self._part("", []))]

    def add(self, text: str, scored: Scored) -> list[Event]:
        """See OpenItem."""
        self._texts.append(text)
        self._scored += scored
        more = {"logprobs": list(scored)} if self._is_answer else {}
        return [self._event(f"{self._words.text}.delta", delta=text, **more)]

    def end(self, status: str) -> list[Event]:
        """See OpenItem."""
        words, text = self._words, "".join(self._texts)
        self.settle(status)
        more = {"logprobs": self._scored} if self._is_answer else {}
        return [
            self._event(f"{words.text}.done", text=text, **more),
            self._event(f"{words.part}.done", part=self._part(text, self._scored)),
            _item_event("done", self._place, self.item),
        ]

    def settle(self, status: str) -> None:
        """Writes into the item what has come."""
        self.item["status"] = status
        self.item[self._words.owner] = [self._part("".join(self._texts), self._scored)]

    def _part(self, text: str, scored: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._is_answer:
            return {"type": self._words.kind, "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": scored}

    def _event(self, kind: str, **more: Any) -> Event:
        place = {"output_index": self._place, self._words.index: 0}
        return {"type": kind, "item_id": self.item["id"], **place, **more}


class CallItem:
    """A call of a function."""

    def __init__(self, call_id: str, name: str, place: int) -> None:
        self.item: dict[str, Any] = {
            "id": item_id("function_call"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        self._place = place
        self._texts: list[str] = []

    def begin(self) -> list[Event]:
        """See OpenItem."""
        return [_item_event("added", self._place, dict(self.item))]

    def add(self, text: str, scored: Scored) -> list[Event]:  # noqa: ARG002 - only texts have any
        """See OpenItem."""
        self._texts.append(text)
        return [self._event("delta", delta=text)] if text else []

    def end(self, status: str) -> list[Event]:
        """See OpenItem."""
        self.settle(status)
        done = self._event("done", arguments=self.item["arguments"])
        return [done, _item_event("done", self._place, self.item)]

    def settle(self, status: str) -> None:
        """Writes into the item what has come."""
        self.item |= {"status": status, "arguments": "".join(self._texts)}

    def _event(self, what: str, **more: Any) -> Event:
        kind = f"response.function_call_arguments.{what}"
        return {"type": kind, "item_id": self.item["id"], "output_index": self._place, **more}


def message_item(place: int) -> TextItem:
    """The assistant's text."""
    item = {"id": item_id("message"), "type": "message", "status": "in_progress"}
    return TextItem({**item, "role": "assistant", "content": []}, place, _ANSWER)


def thought_item(place: int, *, as_summary: bool) -> TextItem:
    """What was thought: its content, or its summary."""
    item = {"id": item_id("reasoning"), "type": "reasoning", "status": "in_progress"}
    words = _SUMMARY if as_summary else _THOUGHT
    return TextItem({**item, "summary": [], "content": []}, place, words)


def _item_event(what: str, place: int, item: dict[str, Any]) -> Event:
    return {"type": f"response.output_item.{what}", "output_index": place, "item": item}

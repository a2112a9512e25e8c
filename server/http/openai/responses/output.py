"""An output put together of chunks, item by item. Pure."""

from collections.abc import Sequence
from typing import Any

from trivet.backends.api import Chunk, TokenLogprob
from trivet.server.http.openai.documents import chat_logprobs
from trivet.server.http.openai.reasoning import ChoiceParts
from trivet.server.http.openai.responses.output_items import (
    CallItem,
    Event,
    OpenItem,
    TextItem,
    message_item,
    thought_item,
)


class OutputItems:
    """The items of one response, and what came of its tokens."""

    def __init__(self, parts: ChoiceParts | None, *, as_summary: bool, is_scored: bool) -> None:
        """`parts` takes the text apart, as it does for chats; None: it is all answer. `as_summary`:
        where thoughts are told."""
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self.num_cached = 0
        self._parts = parts
        self._as_summary = as_summary
        self._is_scored = is_scored
        self._items: list[dict[str, Any]] = []
        self._open: TextItem | CallItem | None = None
        self._kind = ""
        """Of the open one."""
        self._undecided = 0
        """Tokens before the first that says whether thoughts have begun."""
        self._unscored: list[TokenLogprob] = []
        """Of tokens whose text was held back."""

    def take(self, chunk: Chunk) -> list[Event]:
        """The events of the next piece."""
        is_last = chunk.finish is not None
        self.num_cached += chunk.num_cached
        self._unscored += chunk.logprobs
        if self._parts is None:
            deltas = [{"content": chunk.text}] if chunk.text else []
        else:
            deltas = self._parts.deltas(chunk.text, is_last=is_last)
        events = [event for delta in deltas for event in self._delta(delta)]
        self._count(len(chunk.token_ids), has_begun=bool(deltas))
        return events

    def end(self, status: str) -> list[Event]:
        """The events behind the last piece; `status`: completed or incomplete, of what is open."""
        events: list[Event] = []
        if self._kind not in ("message", "function_call") and status == "completed":
            # An answer that says nothing is an empty message, not none.
            events = self._turn_to("message", message_item(self._place))
        return events + self._close(status)

    def forget(self) -> None:
        """Gives up all items so far."""
        self._items, self._open, self._kind = [], None, ""
        self._unscored.clear()

    def items(self) -> list[dict[str, Any]]:
        """All so far, the open one as it is now."""
        if self._open is None:
            return list(self._items)
        self._open.settle("in_progress")
        return [*self._items, dict(self._open.item)]

    @property
    def _place(self) -> int:
        return len(self._items) + (self._open is not None)

    def _delta(self, delta: dict[str, Any]) -> list[Event]:
        if "reasoning" in delta:
            self._unscored.clear()
            return self._text("reasoning", delta["reasoning"])
        if "content" in delta:
            return self._text("message", delta["content"]) if delta["content"] else []
        self._unscored.clear()
        return [event for call in delta.get("tool_calls", ()) for event in self._call(call)]

    def _text(self, kind: str, text: str) -> list[Event]:
        events: list[Event] = []
        if self._kind != kind:
            is_answer, place = kind == "message", self._place
            made = message_item(place) if is_answer else self._thoughts(place)
            events = self._turn_to(kind, made)
        assert self._open is not None
        return events + self._open.add(text, self._scored())

    def _thoughts(self, place: int) -> TextItem:
        return thought_item(place, as_summary=self._as_summary)

    def _call(self, call: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        function = call["function"]
        if "id" in call:
            made = CallItem(call["id"], function["name"], self._place)
            events = self._turn_to("function_call", made)
        assert self._open is not None
        return events + self._open.add(function["arguments"], ())

    def _turn_to(self, kind: str, item: TextItem | CallItem) -> list[Event]:
        events = self._close("completed")
        self._open, self._kind = item, kind
        return events + item.begin()

    def _close(self, status: str) -> list[Event]:
        if self._open is None:
            return []
        open_item: OpenItem = self._open
        events = open_item.end(status)
        self._items.append(open_item.item)
        self._open = None
        return events

    def _scored(self) -> Sequence[dict[str, Any]]:
        if not self._is_scored:
            return ()
        found: list[dict[str, Any]] = chat_logprobs(self._unscored)["content"]
        self._unscored.clear()
        return found

    def _count(self, num_tokens: int, *, has_begun: bool) -> None:
        self.num_tokens += num_tokens
        if not self._kind and not has_begun:
            self._undecided += num_tokens
            return
        if self._kind == "reasoning":
            self.num_reasoning_tokens += num_tokens + self._undecided
        self._undecided = 0

"""An output as blocks of content: the events that tell of them, of which a whole answer is the sum.

A call is told once its input is whole and an object: the client's own stream helper makes a smaller
one of half an input, and would run it. What turns out to be none is text. Tools that are declared
with `eager_input_streaming` have their input told as it comes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from trivet.server.http.openai.reasoning import ChoiceParts

Event = dict[str, Any]
_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_SIGNATURE_BYTES = 32


@dataclass(slots=True)
class _Call:
    """One that is being written."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)


class Blocks:
    """Takes one output apart as it comes."""

    def __init__(
        self, parts: ChoiceParts | None, *, eager: frozenset[str], tells_thoughts: bool
    ) -> None:
        """`parts` None: it is text as it is. `eager`: tools whose input is told as it comes.
        `tells_thoughts` False: that the model thinks, not what."""
        self.has_called = False
        self._parts = parts
        self._eager = eager
        self._tells_thoughts = tells_thoughts
        self._num_blocks = 0
        self._open = ""
        """The kind of the block that is open."""
        self._call: _Call | None = None
        self._is_eager = False
        self._signature = blake2b(digest_size=_SIGNATURE_BYTES)

    def events(self, text: str, *, is_last: bool) -> list[Event]:
        """What this text gives; all blocks are closed behind the last."""
        events: list[Event] = []
        if self._parts is None:
            self._add_text(text, events)
        else:
            for delta in self._parts.deltas(text, is_last=is_last):
                self._take(delta, events)
        if is_last:
            self._end(events)
        return events

    def _take(self, delta: Mapping[str, Any], events: list[Event]) -> None:
        self._add_thought(delta.get("reasoning", ""), events)
        self._add_text(delta.get("content", ""), events)
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                self._begin_call(part["id"], part["function"]["name"], events)
            self._add_arguments(part["function"]["arguments"], events)

    def _add_text(self, text: str, events: list[Event]) -> None:
        if text:
            self._open_as("text", events)
            events.append(self._delta({"type": "text_delta", "text": text}))

    def _add_thought(self, text: str, events: list[Event]) -> None:
        if not text:
            return
        self._open_as("thinking", events)
        self._signature.update(text.encode(errors="replace"))
        if self._tells_thoughts:
            events.append(self._delta({"type": "thinking_delta", "thinking": text}))

    # -- calls ---------------------------------------------------------------------------------

    def _begin_call(self, call_id: str, name: str, events: list[Event]) -> None:
        self._end(events)
        self._is_eager = name in self._eager
        self._call = _Call(call_id, name)
        if self._is_eager:
            self._open_call(self._call, events)

    def _add_arguments(self, text: str, events: list[Event]) -> None:
        if not text or self._call is None:
            return
        if self._is_eager:
            events.append(self._delta({"type": "input_json_delta", "partial_json": text}))
        else:
            self._call.pieces.append(text)

    def _open_call(self, call: _Call, events: list[Event]) -> None:
        self.has_called = True
        begun = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        self._start("tool_use", begun, events)

    def _tell_call(self, call: _Call, events: list[Event]) -> None:
        written = "".join(call.pieces)
        if not _is_object(written):
            self._call = None
            self._add_text(f'{{"name": {json.dumps(call.name)}, "arguments": {written}', events)
            return
        self._open_call(call, events)
        events.append(self._delta({"type": "input_json_delta", "partial_json": written}))

    # -- blocks --------------------------------------------------------------------------------

    def _open_as(self, kind: str, events: list[Event]) -> None:
        if self._open != kind or self._call is not None:
            self._end(events)
        if self._open != kind:
            self._start(kind, _EMPTY[kind], events)

    def _start(self, kind: str, block: Mapping[str, Any], events: list[Event]) -> None:
        self._open = kind
        events.append(
            {
                "type": "content_block_start",
                "index": self._num_blocks,
                "content_block": block,
            }
        )

    def _end(self, events: list[Event]) -> None:
        """Closes what is open; a call that was held back is told first."""
        call, is_held = self._call, not self._is_eager
        if call is not None and is_held:
            self._close(events)
            self._tell_call(call, events)
        self._call = None
        self._close(events)

    def _close(self, events: list[Event]) -> None:
        if not self._open:
            return
        if self._open == "thinking":
            signature = self._signature.hexdigest()
            events.append(self._delta({"type": "signature_delta", "signature": signature}))
        events.append({"type": "content_block_stop", "index": self._num_blocks})
        self._open = ""
        self._num_blocks += 1

    def _delta(self, delta: Mapping[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._num_blocks, "delta": delta}


def whole_content(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The blocks that events make up, none of whose tools is eager."""
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"]})
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], blocks[-1]
            name = _FIELDS[delta["type"]]
            block[name] = (block.get(name) or "") + delta[_WRITTEN.get(name, name)]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = orjson.loads(block["input"])
    return blocks


def _is_object(written: str) -> bool:
    try:
        return isinstance(orjson.loads(written), dict)
    except orjson.JSONDecodeError:
        return False


_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "input",
}
_WRITTEN = {"input": "partial_json"}

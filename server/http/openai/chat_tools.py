"""How a chat's outputs are taken apart: thoughts, text and calls of tools."""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import Finish, GeneratorInfo, Grammar, Unsupported
from trivet.backends.formats.pieces import Piece
from trivet.backends.formats.reader import OutputReader
from trivet.backends.formats.registry import (
    TOOL_FORMATS,
    thought_format,
    tool_format,
)
from trivet.backends.formats.thoughts import ThoughtReader
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.forced_calls import ForcedCalls
from trivet.server.http.openai.reasoning import ChoiceParts
from trivet.server.http.openai.tools import NamedChoice

_CHARACTERS = string.ascii_letters + string.digits
_SHORT_ID_CHARACTERS = 9


class ChatTools:
    """What one request and its model say about calls and thoughts."""

    def __init__(self, fields: ChatFields, info: GeneratorInfo) -> None:
        """Raises Unsupported where the model may call and nobody knows how it writes calls."""
        self._fields = fields
        self._format = tool_format(info.tool_call_parser)
        self._forced: ForcedCalls | None = None
        if fields.tools and fields.forces_call:
            self._forced = ForcedCalls(fields, self._format, info.chat_template)
        is_bound = fields.grammar() is not None
        is_auto = bool(fields.tools) and fields.tool_choice in (None, "auto")
        self.is_free = is_auto and not is_bound
        """Whether the model itself decides and writes calls its own way."""
        # What is forced as JSON has no thoughts.
        is_plain = self._forced is not None and self._forced.is_plain
        has_thoughts = not (is_bound or is_plain)
        self._thoughts = thought_format(info.reasoning_parser) if has_thoughts else None
        self._is_thinking = False
        self._check()

    @property
    def may_call(self) -> bool:
        """Whether calls are looked for at all."""
        return self._forced is not None or self.is_free

    @property
    def takes_apart(self) -> bool:
        """Whether outputs may be more than content."""
        return self.may_call or self._thoughts is not None or self._is_whole

    @property
    def keeps_marks(self) -> bool:
        """Whether special tokens are looked at: they are the marks of some models."""
        if self._is_whole or (self._thoughts is not None and self._thoughts.is_special):
            return True
        return self.is_free or (self._forced is not None and not self._forced.is_plain)

    @property
    def _is_whole(self) -> bool:
        return self._format is not None and self._format.is_whole

    def note_prompt(self, text: str) -> None:
        """What the chat template has written: it may begin the model's thoughts."""
        self._is_thinking = self._thoughts is not None and self._thoughts.is_open(text)

    def grammar(self) -> Grammar | None:
        """Of calls that are forced, behind the thoughts that the prompt has begun. Raises
        InvalidRequest."""
        if self._forced is None:
            return None
        thoughts = self._thoughts if self._is_thinking else None
        return self._forced.grammar(thoughts)

    def choice(self) -> ChoiceParts | None:
        """Takes one choice apart; None where it is content as it is."""
        reader = self._reader()
        if reader is None:
            return None
        chosen = self._fields.tool_choice
        return ChoiceCalls(
            reader,
            Telling(
                self._new_id,
                in_parallel=self._fields.calls_in_parallel,
                is_named=isinstance(chosen, NamedChoice),
                tells_thoughts=self._fields.include_reasoning,
            ),
        )

    def _reader(self) -> OutputReader | None:
        reader: OutputReader | None = None
        if self._forced is not None:
            reader = self._forced.reader()
        elif self._format is not None and (self.is_free or self._is_whole):
            tools = (self._fields.tools or ()) if self.is_free else ()
            reader = self._format.reader(
                {tool.function.name: tool.function.schema_of_arguments for tool in tools}
            )
        if self._thoughts is None or self._is_whole:
            return reader
        return ThoughtReader(self._thoughts, reader, is_thinking=self._is_thinking)

    def _check(self) -> None:
        if self.is_free and self._format is None:
            names = ", ".join(each.name for each in TOOL_FORMATS)
            raise Unsupported(
                "tool_choice: nobody knows how this model writes calls by itself; use required, "
                f"none or a function's name, or set the model parameter tool_call_parser to one of "
                f"{names}"
            )

    def _new_id(self) -> str:
        if self._format is not None and self._format.short_ids:
            # Its templates refuse any other form when the call comes back.
            return "".join(secrets.choice(_CHARACTERS) for _ in range(_SHORT_ID_CHARACTERS))
        return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class Telling:
    """What of a choice is told, and how."""

    new_id: Callable[[], str]
    in_parallel: bool
    is_named: bool
    """Whether the function was the client's choice."""
    tells_thoughts: bool


class ChoiceCalls:
    """One choice's text, taken apart into thoughts, content and calls."""

    def __init__(self, reader: OutputReader, telling: Telling) -> None:
        self._reader = reader
        self._telling = telling
        self._has_called = False

    def deltas(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """What a stream's `delta` says of this text; several where content and calls meet."""
        pieces = self._reader.push(text)
        if is_last:
            pieces += self._reader.flush()
        return [self._delta(piece) for piece in pieces if self._is_told(piece)]

    def _is_told(self, piece: Piece) -> bool:
        if piece.is_thought:
            return self._telling.tells_thoughts
        return not piece.index or self._telling.in_parallel

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if piece.index is None:
            return {"reasoning" if piece.is_thought else "content": piece.text}
        self._has_called = True
        function: dict[str, Any] = {"arguments": piece.text}
        if not piece.name:
            return {"tool_calls": [{"index": piece.index, "function": function}]}
        function = {"name": piece.name, **function}
        told_id = piece.id or self._telling.new_id()
        head = {"index": piece.index, "id": told_id, "type": "function"}
        return {"tool_calls": [{**head, "function": function}]}

    def finish(self, finish: Finish | None) -> dict[str, Any]:
        """finish_reason and stop_reason. An answer that was to call a named function has "stop", as
        OpenAI's has."""
        if finish is None:
            return {"finish_reason": None}
        reason = finish.reason
        if reason == "stop" and self._has_called and not self._telling.is_named:
            reason = "tool_calls"
        return {"finish_reason": reason, "stop_reason": finish.stop}


def whole_message(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a choice's deltas make up: content, and tool_calls if there are any."""
    content = "".join(delta.get("content", "") for delta in deltas)
    calls: list[dict[str, Any]] = []
    for part in (call for delta in deltas for call in delta.get("tool_calls", ())):
        if "id" in part:
            calls.append({"id": part["id"], "type": "function", "function": part["function"]})
        else:
            calls[-1]["function"]["arguments"] += part["function"]["arguments"]
    thoughts = "".join(delta.get("reasoning", "") for delta in deltas)
    message: dict[str, Any] = {"reasoning": thoughts} if thoughts else {}
    if calls:
        return {"content": content or None, **message, "tool_calls": calls}
    return {"content": content, **message}

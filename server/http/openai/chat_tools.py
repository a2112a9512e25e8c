"""How the calls of tools in a chat's outputs are found and told."""

import secrets
import string
from collections.abc import Callable
from typing import Any

from trivet.backends.api import Finish, GeneratorInfo, Unsupported
from trivet.server.http.openai.call_object import Piece
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.reasoning import (
    OPEN,
    ChoiceParts,
    ThinkingChoice,
    ThoughtSplitter,
)
from trivet.server.http.openai.tool_calls import PARSERS, CallParser, NamedCall, listed_calls
from trivet.server.http.openai.tools import NamedChoice

_CHARACTERS = string.ascii_letters + string.digits
_MISTRAL_ID_CHARACTERS = 9


class ChatTools:
    """What one request and its model say about calls."""

    def __init__(self, fields: ChatFields, info: GeneratorInfo) -> None:
        """Raises Unsupported where the model may call and nobody knows how it writes calls."""
        self._fields = fields
        self._style = info.tool_call_parser
        self._make_parser = self._parser_of(fields)
        # What a grammar forces has no thoughts.
        self._thinks = info.reasoning_parser == "think" and fields.grammar() is None
        self._is_thinking = False

    @property
    def may_call(self) -> bool:
        """Whether calls are looked for at all."""
        return self._make_parser is not None

    @property
    def is_free(self) -> bool:
        """Whether the model itself decides and writes calls its own way."""
        return self.may_call and self._fields.tool_choice in (None, "auto")

    @property
    def takes_apart(self) -> bool:
        """Whether outputs may be more than content."""
        return self.may_call or self._thinks

    def note_prompt(self, text: str) -> None:
        """What the chat template has written: it may begin the model's thoughts."""
        self._is_thinking = text.rstrip().endswith(OPEN)

    def choice(self) -> ChoiceParts | None:
        """Takes one choice apart; None where it is content as it is."""
        calls = self._calls()
        if not self._thinks:
            return calls
        splitter = ThoughtSplitter(is_thinking=self._is_thinking)
        return ThinkingChoice(splitter, calls, tells_thoughts=self._fields.include_reasoning)

    def _calls(self) -> "ChoiceCalls | None":
        if self._make_parser is None:
            return None
        return ChoiceCalls(
            self._make_parser(),
            self._new_id,
            in_parallel=self._fields.calls_in_parallel,
            is_named=isinstance(self._fields.tool_choice, NamedChoice),
        )

    def _parser_of(self, fields: ChatFields) -> Callable[[], CallParser] | None:
        choice = fields.tool_choice
        if not fields.tools or choice == "none":
            return None
        if isinstance(choice, NamedChoice):
            name = choice.function.name
            return lambda: NamedCall(name)
        if choice == "required":
            return listed_calls
        if fields.grammar() is not None:
            return None
        if self._style not in PARSERS:
            raise Unsupported(
                "tool_choice: nobody knows how this model writes calls by itself; use required, "
                f"none or a function's name, or set the model parameter tool_call_parser to one of "
                f"{', '.join(PARSERS)}"
            )
        return PARSERS[self._style]

    def _new_id(self) -> str:
        if self._style == "mistral":
            # Its templates refuse any other form when the call comes back.
            return "".join(secrets.choice(_CHARACTERS) for _ in range(_MISTRAL_ID_CHARACTERS))
        return f"call_{secrets.token_hex(12)}"


class ChoiceCalls:
    """One choice's text, taken apart into content and calls."""

    def __init__(
        self,
        parser: CallParser,
        new_id: Callable[[], str],
        *,
        in_parallel: bool,
        is_named: bool,
    ) -> None:
        self._parser = parser
        self._new_id = new_id
        self._in_parallel = in_parallel
        self._is_named = is_named
        self._has_called = False

    def deltas(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """What a stream's `delta` says of this text; several where content and calls meet."""
        pieces = self._parser.push(text)
        if is_last:
            pieces += self._parser.flush()
        wanted = [piece for piece in pieces if not piece.index or self._in_parallel]
        return [self._delta(piece) for piece in wanted]

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if piece.index is None:
            return {"content": piece.text}
        self._has_called = True
        function: dict[str, Any] = {"arguments": piece.text}
        if not piece.name:
            return {"tool_calls": [{"index": piece.index, "function": function}]}
        function = {"name": piece.name, **function}
        head = {"index": piece.index, "id": self._new_id(), "type": "function"}
        return {"tool_calls": [{**head, "function": function}]}

    def finish(self, finish: Finish | None) -> dict[str, Any]:
        """finish_reason and stop_reason. An answer that was to call a named function has "stop", as
        OpenAI's has."""
        if finish is None:
            return {"finish_reason": None}
        reason = finish.reason
        if reason == "stop" and self._has_called and not self._is_named:
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

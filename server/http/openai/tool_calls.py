"""Calls of tools in a model's output, found while it comes. Pure; takes linear time.

What is no call after all comes out as text, so nothing that a model wrote is lost; and the pieces
put together are the same however the output was cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trivet.server.http.openai.call_object import CallObject, Pieces


@dataclass(frozen=True, slots=True)
class Style:
    """How a model writes calls."""

    opening: str
    """Before the calls; empty: the whole output is calls."""
    closing: str = ""
    """Behind them; empty: they go on to the end."""
    needs_arguments: bool = False
    """Whether an object without arguments is no call: where no mark says that it is one."""
    has_bare_names: bool = False
    """Whether a name may stand before the object of its arguments: `weather{"city": "Rome"}`."""


class CallParser(Protocol):
    """Takes an output's text as it comes."""

    def push(self, text: str) -> Pieces:
        """What is certain with this text."""

    def flush(self) -> Pieces:
        """What was held back: the output has ended."""


class StyledCalls:
    """Calls between marks, as objects with name and arguments, alone or in lists."""

    def __init__(self, style: Style, *, is_open: bool = False) -> None:
        """`is_open`: as if the opening mark had come."""
        self._style = style
        self._is_open = is_open
        self._held = ""
        """The end of the text so far, which may become the opening mark."""
        self._blank: list[str] | None = []
        """White space that is shown only if text follows; None: text has come."""
        self._raw: list[str] = []
        """What was written since the last call, opening mark included."""
        self._tail = ""
        """Characters behind a call: a part of the closing mark, or a bare name."""
        self._call: CallObject | None = None
        self._num_calls = 0

    def push(self, text: str) -> Pieces:
        """What is certain with this text."""
        pieces = Pieces()
        while text:
            text = self._in_calls(text, pieces) if self._is_open else self._in_text(text, pieces)
        return pieces

    def flush(self) -> Pieces:
        """What was held back: the output has ended."""
        pieces = Pieces()
        if self._is_open:
            is_begun = self._call is not None and self._call.is_told
            if not is_begun and (self._call is not None or self._tail):
                self._show("".join(self._raw), pieces)
        else:
            self._show(self._held, pieces)
        if self._blank and not self._num_calls:
            pieces.add_text("".join(self._blank))
        self._held, self._raw = "", []
        return pieces

    # -- outside of calls ----------------------------------------------------------------------

    def _in_text(self, text: str, pieces: Pieces) -> str:
        """Returns what is left to look at."""
        opening = self._style.opening
        held = self._held + text
        place = held.find(opening) if opening else -1
        if place >= 0:
            self._show(held[:place], pieces)
            self._held, self._is_open, self._raw = "", True, [opening]
            return held[place + len(opening) :]
        cut = len(held) - _overlap(held, opening)
        self._show(held[:cut], pieces)
        self._held = held[cut:]
        return ""

    def _show(self, text: str, pieces: Pieces) -> None:
        if self._blank is not None:
            self._blank.append(text)
            if not text or text.isspace():
                return
            text, self._blank = "".join(self._blank), None
        pieces.add_text(text)

    # -- within calls --------------------------------------------------------------------------

    def _in_calls(self, text: str, pieces: Pieces) -> str:
        """Returns what is left to look at."""
        for place, char in enumerate(text):
            self._raw.append(char)
            self._take(char, pieces)
            if not self._is_open:
                return text[place + 1 :]
        return ""

    def _take(self, char: str, pieces: Pieces) -> None:
        if self._call is not None:
            self._call.take(char, pieces)
            if self._call.is_done:
                self._num_calls += 1
                self._blank = []
                self._call, self._raw = None, []
            elif self._call.is_wrong:
                self._give_up(pieces)
        elif char == "{":
            self._begin(pieces)
        elif self._tail or not (char.isspace() or char in ",;[]"):
            self._take_between(char, pieces)

    def _begin(self, pieces: Pieces) -> None:
        # Mistral's further marks: `[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{...}`.
        head = self._tail.partition("[ARGS]")[0].partition("[CALL_ID]")[0]
        self._call = CallObject(
            self._num_calls,
            name=head.rpartition("]")[2].strip(),
            needs_arguments=self._style.needs_arguments,
        )
        self._tail = ""
        self._call.take("{", pieces)

    def _take_between(self, char: str, pieces: Pieces) -> None:
        self._tail += char
        closing = self._style.closing
        if self._tail == closing:
            self._tail, self._raw, self._is_open = "", [], False
        elif closing.startswith(self._tail):
            return
        elif not self._style.has_bare_names or len(self._tail) > MAX_NAME_CHARACTERS:
            self._give_up(pieces)

    def _give_up(self, pieces: Pieces) -> None:
        """What was taken for a call is text, unless the client has been told of the call."""
        is_told = self._call is not None and self._call.is_told
        self._num_calls += is_told
        if not is_told:
            self._show("".join(self._raw), pieces)
        self._call, self._raw, self._tail, self._is_open = None, [], "", False


class LeadingCalls:
    """Calls that make up a whole output, behind a mark that may be missing: Llama's."""

    def __init__(self, mark: str, style: Style) -> None:
        self._mark = mark
        self._calls = StyledCalls(style, is_open=True)
        self._text = StyledCalls(style)
        self._chosen: StyledCalls | None = None
        self._held = ""

    def push(self, text: str) -> Pieces:
        """What is certain with this text."""
        if self._chosen is not None:
            return self._chosen.push(text)
        self._held += text
        start = self._held.lstrip()
        if not start or (len(start) < len(self._mark) and self._mark.startswith(start)):
            return Pieces()
        start = start.removeprefix(self._mark)
        if not start.lstrip() and start != self._held.lstrip():
            return Pieces()
        is_call = start.lstrip().startswith("{")
        self._chosen = self._calls if is_call else self._text
        return self._chosen.push(start if is_call else self._held)

    def flush(self) -> Pieces:
        """What was held back: the output has ended."""
        if self._chosen is not None:
            return self._chosen.flush()
        pieces = Pieces()
        pieces.add_text(self._held)
        return pieces


class NamedCall:
    """An output that is the arguments of one function."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_told = False

    def push(self, text: str) -> Pieces:
        """All of it."""
        pieces = Pieces()
        if not self._is_told:
            self._is_told = True
            pieces.add_call(0, self._name)
        pieces.add_arguments(0, text)
        return pieces

    def flush(self) -> Pieces:
        """Nothing is held back."""
        return Pieces()


def listed_calls() -> CallParser:
    """For an output that a grammar has made a list of calls."""
    return StyledCalls(Style(""), is_open=True)


def _overlap(text: str, mark: str) -> int:
    """How long an end of `text` could be the beginning of `mark`."""
    longest = min(len(mark) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(mark[:size])), 0)


MAX_NAME_CHARACTERS = 256
PARSERS: dict[str, Callable[[], CallParser]] = {
    "hermes": lambda: StyledCalls(Style("<tool_call>", "</tool_call>")),
    "mistral": lambda: StyledCalls(Style("[TOOL_CALLS]", has_bare_names=True)),
    "llama3_json": lambda: LeadingCalls("<|python_tag|>", Style("", needs_arguments=True)),
}
"""By the name of a model's way to write calls (GeneratorInfo.tool_call_parser)."""

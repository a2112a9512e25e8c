"""One call of a tool, read by character from the JSON object that a model writes. Pure."""

import json
from dataclasses import dataclass

_NAMES = ("name",)
_ARGUMENTS = ("arguments", "parameters")
_SPACE = " \t\r\n"


@dataclass(slots=True)
class Piece:
    """Text, or a part of a call: its name comes first, then its arguments bit by bit."""

    text: str = ""
    index: int | None = None
    """Of the call, among the calls of the output; None: plain text."""
    name: str = ""
    """On a call's first piece."""


class Pieces(list[Piece]):
    """What came of one text; neighbours that belong together are one piece."""

    def add_text(self, text: str) -> None:
        """Plain text."""
        if not text:
            return
        if self and self[-1].index is None:
            self[-1].text += text
        else:
            self.append(Piece(text))

    def add_call(self, index: int, name: str) -> None:
        """A call begins."""
        self.append(Piece("", index, name))

    def add_arguments(self, index: int, text: str) -> None:
        """More of its arguments."""
        if self and self[-1].index == index:
            self[-1].text += text
        else:
            self.append(Piece(text, index))


class CallObject:
    """Reads `{"name": ..., "arguments": ...}` in any order of keys; the arguments' text goes out as
    it comes once the name is known. Knows depth and strings of JSON, and checks no more."""

    def __init__(self, index: int, *, name: str = "", needs_arguments: bool = False) -> None:
        """`name`: known before; then the whole object is the arguments."""
        self.is_done = False
        self.is_wrong = False
        """The characters are no call; they were taken in vain unless `is_told`."""
        self.is_told = False
        """Whether the client has been told of the call."""
        self._index = index
        self._name = name
        self._needs_arguments = needs_arguments
        self._is_bare = bool(name)
        self._place = "value" if name else "start"
        self._key = "arguments" if name else ""
        self._word: list[str] = []
        """Of the key or value that is being read."""
        self._early: str | None = None
        """Arguments that came before the name."""
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def take(self, char: str, pieces: Pieces) -> None:
        """The next character."""
        if self._place == "value":
            self._take_value(char, pieces)
        elif self._place == "key":
            self._take_key(char)
        elif char not in _SPACE:
            self._take_structure(char, pieces)

    def _take_structure(self, char: str, pieces: Pieces) -> None:
        following = _NEXT.get((self._place, char))
        if self._place == "before value":
            self._place = "value"
            self._take_value(char, pieces)
        elif following is None:
            self.is_wrong = True
        elif following == "end":
            self._end(pieces)
        else:
            self._place = following

    def _take_key(self, char: str) -> None:
        if char == '"' and not self._is_escaped:
            self._key, self._word = "".join(self._word), []
            self._place = "colon"
            return
        self._is_escaped = char == "\\" and not self._is_escaped
        self._word.append(char)

    # -- values --------------------------------------------------------------------------------

    def _take_value(self, char: str, pieces: Pieces) -> None:
        if self._depth == 0 and not self._in_string and (char in ",}" or char in _SPACE):
            # The character behind a number, true, false or null.
            self._end_value(pieces)
            self.take(char, pieces)
            return
        self._word.append(char)
        self._follow(char)
        if self._key in _ARGUMENTS and self._word[0] in "{[" and self._name:
            self._tell(pieces)
            pieces.add_arguments(self._index, char)
        if self._depth == 0 and not self._in_string and char in '"]}':
            self._end_value(pieces)

    def _follow(self, char: str) -> None:
        if self._in_string:
            if char == '"' and not self._is_escaped:
                self._in_string = False
            self._is_escaped = char == "\\" and not self._is_escaped
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "]}":
            self._depth -= 1

    def _end_value(self, pieces: Pieces) -> None:
        word, self._word = "".join(self._word), []
        self._place = "after value"
        if self._key in _NAMES:
            self._name = _text(word)
            self.is_wrong = not self._name
            if self._name and self._early is not None:
                self._tell(pieces)
                pieces.add_arguments(self._index, self._early)
        elif self._key in _ARGUMENTS:
            self._end_arguments(word, pieces)
        if self._is_bare:
            self.is_done = True

    def _end_arguments(self, word: str, pieces: Pieces) -> None:
        if word[:1] in ("{", "[") and self.is_told:
            return
        # Some models write the arguments as a text with JSON in it.
        text = word if word[:1] in ("{", "[") else _text(word) or "{}"
        if not self._name:
            self._early = text
        elif not self.is_told:
            self._tell(pieces)
            pieces.add_arguments(self._index, text)

    def _end(self, pieces: Pieces) -> None:
        if not self.is_told:
            if not self._name or self._needs_arguments:
                self.is_wrong = True
                return
            self._tell(pieces)
            pieces.add_arguments(self._index, "{}")
        self.is_done = True

    def _tell(self, pieces: Pieces) -> None:
        if not self.is_told:
            self.is_told = True
            pieces.add_call(self._index, self._name)


def _text(word: str) -> str:
    """The text that a JSON string is; empty for what is none."""
    try:
        value = json.loads(word)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


_NEXT = {
    ("start", "{"): "before key",
    ("before key", '"'): "key",
    ("before key", "}"): "end",
    ("colon", ":"): "before value",
    ("after value", ","): "before key",
    ("after value", "}"): "end",
}
"""What a character leads to."""

"""Reads outputs: what all formats do alike with text, calls and what is none after all. Pure.

What is no call comes out as text, so nothing that a model wrote is lost; and the pieces put
together are the same however the output was cut.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from trivet.backends.formats.pieces import Pieces
from trivet.backends.formats.source import Ended, Malformed, Reading, Source

Tools = Mapping[str, Mapping[str, Any]]
"""The schemas of arguments by the names of functions."""
_ALL = re.compile("(?s).+")


class OutputReader(Protocol):
    """Takes an output's text as it comes."""

    def push(self, text: str) -> Pieces:
        """What is certain with this text."""

    def flush(self) -> Pieces:
        """What was held back: the output has ended."""


class Reader(ABC):
    """An OutputReader; a format says in `read` how its outputs go on."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        """Those of the request; formats without marks of their own believe only in these."""
        self.source = Source()
        self._pieces = Pieces()
        self._num_calls = 0
        self._num_calls_before = 0
        self._blank: list[str] | None = []
        """White space that is shown only if text follows; None: text has come."""
        self._num_arguments = 0
        self._ids: set[str] = set()
        self._running = self._run()

    def push(self, text: str) -> Pieces:
        """What is certain with this text."""
        self.source.push(text)
        return self._advance()

    def flush(self) -> Pieces:
        """What was held back: the output has ended."""
        self.source.end()
        return self._advance()

    def _advance(self) -> Pieces:
        next(self._running, None)
        pieces, self._pieces = self._pieces, Pieces()
        return pieces

    def _run(self) -> Reading[None]:
        try:
            yield from self.read()
            yield from self.rest()
        except Ended:
            pass
        if self._blank and not self._num_calls:
            self._pieces.add_text("".join(self._blank))

    @abstractmethod
    def read(self) -> Reading[None]:
        """The whole output; what it leaves is text. May raise Ended."""

    # -- for formats ---------------------------------------------------------------------------

    def rest(self) -> Reading[None]:
        """All that comes is text."""
        while True:
            yield from self.source.peek()
            self.show(self.source.run(_ALL))

    def show(self, text: str) -> None:
        """It is text."""
        if self._blank is not None:
            self._blank.append(text)
            if not text or text.isspace():
                return
            text, self._blank = "".join(self._blank), None
        self._pieces.add_text(text)

    def think(self, text: str) -> None:
        """It is thought."""
        self._pieces.add_text(text, is_thought=True)

    def behind_each(self, opening: str, calls: Callable[[], Reading[None]]) -> Reading[None]:
        """Text up to each mark, and what seems to be calls behind it. Ends with the output."""
        while True:
            yield from self.source.until((opening,), self.show)
            yield from self.attempt(opening, calls())

    def attempt(self, taken: str, reading: Reading[None]) -> Reading[bool]:
        """Reads what seems to be calls behind a mark that was taken; what is none is shown. Gives
        whether all was well."""
        self._num_calls_before = self._num_calls
        self.source.remember(taken)
        try:
            yield from reading
        except Malformed:
            return False
        finally:
            self.show(self.source.taken)
            self.source.forget()
        return True

    def tell(self, name: str, own_id: str = "") -> None:
        """A call begins: from here on it cannot be taken back."""
        self.source.forget()
        # A model may count wrongly, and clients tell calls apart by their ids.
        self._pieces.add_call(self._num_calls, name, "" if own_id in self._ids else own_id)
        self._ids.add(own_id)
        self._num_calls += 1
        self._num_arguments = 0
        self._blank = []

    def argue(self, text: str) -> None:
        """More of the arguments of the call that began last."""
        self._pieces.add_arguments(self._num_calls - 1, text)

    def argue_name(self, name: str) -> None:
        """The next argument begins, where a format does not write them as JSON."""
        before = ", " if self._num_arguments else "{"
        self._num_arguments += 1
        self.argue(f"{before}{json.dumps(name, ensure_ascii=False)}: ")

    def argue_cut_name(self, name: str) -> None:
        """The output ends within the next argument's name."""
        before = ", " if self._num_arguments else "{"
        self.argue(before + json.dumps(name, ensure_ascii=False)[:-1])

    def argue_end(self) -> None:
        """There are no more of those."""
        self.argue("}" if self._num_arguments else "{}")

    def settle(self) -> None:
        """All that was taken is told, if a call is; what follows may be text after all."""
        if self._num_calls > self._num_calls_before:
            self.source.remember()

    @property
    def num_calls(self) -> int:
        """Told so far."""
        return self._num_calls

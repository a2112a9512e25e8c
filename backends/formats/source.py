"""Text that comes bit by bit, for readers that wait where it ends. Pure.

A reader is a generator: `yield from` one of these methods gives what it asks for, once that has
come. Whatever is certain is taken at once, so that a reader sees the same however the text is cut,
and no text is looked at twice.
"""

import re
from collections.abc import Callable, Generator
from typing import TypeVar

_T = TypeVar("_T")
Reading = Generator[None, None, _T]
"""Waits for text by yielding, and returns what it has read."""
Sink = Callable[[str], object]
"""Takes a text as it comes."""
SPACE = " \t\r\n"


class Ended(Exception):
    """There is no more text, and none will come."""


class Malformed(Exception):
    """The text is not what it was taken for. What does not fit has not been taken."""


class Source:
    """One output's text. Remembers what was taken since `remember`, for it may have to be shown."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._is_ended = False
        self._taken: list[str] | None = None

    def push(self, text: str) -> None:
        """More has come."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """No more will come."""
        self._is_ended = True

    def remember(self, taken: str = "") -> None:
        """From here on, with a text that was taken before."""
        self._taken = [taken]

    def forget(self) -> None:
        """What was taken is told already."""
        self._taken = None

    def leave(self, text: str) -> None:
        """What was taken last and is nobody's: it is remembered even if nothing else is."""
        if self._taken is None:
            self._taken = [text]

    @property
    def taken(self) -> str:
        """Since `remember`; empty after `forget`."""
        return "".join(self._taken or ())

    def _take(self, size: int) -> str:
        text = self._text[self._at : self._at + size]
        self._at += size
        if self._taken is not None:
            self._taken.append(text)
        return text

    def _wait(self) -> Reading[None]:
        if self._is_ended:
            raise Ended
        yield

    # -- what readers ask ----------------------------------------------------------------------

    def peek(self) -> Reading[str]:
        """The next character, which is not taken."""
        while self._at == len(self._text):
            yield from self._wait()
        return self._text[self._at]

    def next(self) -> Reading[str]:
        """The next character."""
        yield from self.peek()
        return self._take(1)

    def run(self, pattern: re.Pattern[str]) -> str:
        """What matches of the text that is here; may be empty, and may go on later."""
        found = pattern.match(self._text, self._at)
        return self._take(len(found[0])) if found else ""

    def spaces(self) -> Reading[None]:
        """Takes white space, if there is any."""
        while (yield from self.peek()) in SPACE:
            self._take(1)

    def sees(self, mark: str) -> Reading[bool]:
        """Whether the text goes on with it."""
        while not self._text.startswith(mark, self._at):
            here = self._text[self._at :]
            if len(here) >= len(mark) or not mark.startswith(here) or self._is_ended:
                return False
            yield from self._wait()
        return True

    def has(self, mark: str) -> Reading[bool]:
        """The same; it is taken then."""
        is_there = yield from self.sees(mark)
        if is_there:
            self._take(len(mark))
        return is_there

    def expect(self, mark: str) -> Reading[None]:
        """Takes it. Raises Malformed."""
        if not (yield from self.has(mark)):
            # At the very end it is not wrong, but cut off.
            yield from self.peek()
            raise Malformed(mark)

    def until(self, marks: tuple[str, ...], sink: Sink) -> Reading[str]:
        """Takes the mark that begins first, and gives it; what is before it goes to the sink as it
        comes. Raises Ended once all has gone there."""
        while True:
            place, mark = self._first(marks)
            held = len(self._text) if self._is_ended else self._may_begin(marks)
            if place <= held and mark:
                self._give(place, sink)
                return self._take(len(mark))
            self._give(held, sink)
            yield from self._wait()

    def _first(self, marks: tuple[str, ...]) -> tuple[int, str]:
        found = [(self._text.find(mark, self._at), mark) for mark in marks]
        return min((each for each in found if each[0] >= 0), default=(0, ""))

    def _may_begin(self, marks: tuple[str, ...]) -> int:
        """Where the end of the text begins that may become a mark."""
        held = end = len(self._text)
        for mark in marks:
            place = self._text.find(mark[0], max(self._at, end - len(mark) + 1))
            while 0 <= place < held:
                if mark.startswith(self._text[place:]):
                    held = place
                place = self._text.find(mark[0], place + 1)
        return held

    def _give(self, place: int, sink: Sink) -> None:
        if place > self._at:
            sink(self._take(place - self._at))

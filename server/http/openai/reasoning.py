"""What a model thinks before it answers, told apart from its answer."""

from typing import Any, Protocol

from trivet.backends.api import Finish
from trivet.server.http.openai import documents as docs

OPEN, CLOSE = "<think>", "</think>"
Part = tuple[bool, str]
"""Whether a text is thought, and the text."""


class ChoiceParts(Protocol):
    """One choice's text, taken apart as it comes."""

    def deltas(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """What a stream's `delta` says of this text."""

    def finish(self, finish: Finish | None) -> dict[str, Any]:
        """finish_reason and stop_reason."""


class ThoughtSplitter:
    """Thoughts go from `<think>`, if that is what an output begins with, to `</think>`. Pure."""

    def __init__(self, *, is_thinking: bool) -> None:
        """`is_thinking`: the prompt has ended with the first mark."""
        self._place = "thought" if is_thinking else "start"
        self._held = ""

    def push(self, text: str) -> list[Part]:
        """What is certain with this text; an end that may be a mark is held back."""
        self._held += text
        if self._place == "start":
            self._look_for_open()
        found: list[Part] = []
        if self._place == "thought":
            thought, mark, rest = self._held.partition(CLOSE)
            size = len(thought) if mark else len(thought) - _overlap(thought)
            found.append((True, thought[:size]))
            self._held = rest if mark else thought[size:]
            self._place = "answer" if mark else "thought"
        if self._place == "answer":
            found.append((False, self._held))
            self._held = ""
        return [part for part in found if part[1]]

    def flush(self) -> list[Part]:
        """What was held back: the output has ended."""
        held, self._held = self._held, ""
        return [(self._place == "thought", held)] if held else []

    def _look_for_open(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._place, self._held = "thought", begun[len(OPEN) :]
        elif not OPEN.startswith(begun):
            self._place = "answer"


class ThinkingChoice:
    """A choice's thoughts, and its answer, which may hold calls."""

    def __init__(
        self, splitter: ThoughtSplitter, answer: ChoiceParts | None, *, tells_thoughts: bool
    ) -> None:
        """`answer` None: it is content as it is."""
        self._splitter = splitter
        self._answer = answer
        self._tells_thoughts = tells_thoughts

    def deltas(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """See ChoiceParts."""
        parts = self._splitter.push(text)
        if is_last:
            parts += self._splitter.flush()
        found: list[dict[str, Any]] = []
        for is_thought, part in parts:
            if is_thought:
                found += [{"reasoning": part}] if self._tells_thoughts else []
            elif self._answer is None:
                found.append({"content": part})
            else:
                found += self._answer.deltas(part, is_last=False)
        if is_last and self._answer is not None:
            found += self._answer.deltas("", is_last=True)
        return found

    def finish(self, finish: Finish | None) -> dict[str, Any]:
        """See ChoiceParts."""
        if self._answer is None:
            return docs.finish_fields(finish)
        return self._answer.finish(finish)


def _overlap(text: str) -> int:
    """How long an end of `text` could be the beginning of the mark."""
    sizes = range(min(len(CLOSE) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(CLOSE[:size])), 0)

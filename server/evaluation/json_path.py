"""Paths into JSON: `$.desk`, `$.items[0].name`, `$.items[*].name`, `$['a key']`."""

import re
from dataclasses import dataclass
from typing import Any, Self

from trivet.server.evaluation.faults import SetFault

_STEP = re.compile(r"\.(?P<name>[A-Za-z_][\w-]*)|\[(?P<index>-?\d+|\*)\]|\['(?P<key>[^']*)'\]")
EVERY = "*"


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path, as its steps: keys, indices, and all elements of a list."""

    text: str
    steps: tuple[str | int, ...]
    every: frozenset[int]
    """Which of the steps mean all elements."""

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """Raises SetFault."""
        steps: list[str | int] = []
        every: set[int] = set()
        position = 1
        while text.startswith("$") and position < len(text):
            step = _STEP.match(text, position)
            if step is None:
                break
            if step["index"] == EVERY:
                every.add(len(steps))
                steps.append(EVERY)
            elif step["index"] is not None:
                steps.append(int(step["index"]))
            else:
                steps.append(step["name"] if step["name"] is not None else step["key"])
            position = step.end()
        if position != len(text) or not text.startswith("$"):
            raise SetFault(
                f"{place}: '{text[:64]}' is no path; write $.key, $[0], $[*] or $['a key'] one "
                "behind the other"
            )
        return cls(text, tuple(steps), frozenset(every))

    def __str__(self) -> str:
        return self.text

    def find(self, document: Any) -> list[Any]:
        """All values that it leads to."""
        found = [document]
        for number, step in enumerate(self.steps):
            found = [value for each in found for value in self._follow(each, step, number)]
        return found

    def _follow(self, value: Any, step: str | int, number: int) -> list[Any]:
        if number in self.every:
            return value if isinstance(value, list) else []
        if isinstance(step, int):
            is_there = isinstance(value, list) and -len(value) <= step < len(value)
            return [value[step]] if is_there else []
        return [value[step]] if isinstance(value, dict) and step in value else []

"""`[shadow]` of traffic.toml: a version that is asked the same, beside, and answers nobody.

version = "canary"      # a label, or a version's number
percent = 100           # of the requests that name no version
tolerance = 1e-3        # of numbers, absolute and relative
similarity = 1.0        # of texts: 1 is the same
concurrency = 1         # requests that it computes at a time
queue = 16              # requests that wait for that; others have no shadow
redact = ["text"]       # tensors whose values are not kept; "*" is all
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.server.models.texts import did_you_mean

_NUMBERS = {
    "percent": (0.0, 100.0),
    "tolerance": (0.0, 1e6),
    "similarity": (0.0, 1.0),
    "concurrency": (1, 64),
    "queue": (1, 4096),
}
_KEYS = ("version", *_NUMBERS, "redact")


@dataclass(frozen=True, slots=True)
class Shadow:
    """Who is asked beside, and how answers are compared."""

    target: str
    """As the file has it."""
    percent: float = 100.0
    tolerance: float = 1e-3
    similarity: float = 1.0
    concurrency: int = 1
    queue: int = 16
    redact: frozenset[str] = frozenset()

    def version_in(self, labels: Mapping[str, int]) -> int | None:
        """The version that it means; None: none is called so now."""
        return int(self.target) if self.target.isdigit() else labels.get(self.target)

    def hides(self, name: str) -> bool:
        """Whether the values of a tensor are not to be kept."""
        return name in self.redact or "*" in self.redact


def parse_shadow(table: Mapping[str, Any], known: Mapping[str, int]) -> Shadow:
    """What a table says; `known` are the labels of the file. Raises InvalidConfig."""
    for key in table:
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS) or f"; its keys are {', '.join(_KEYS)}"
            raise InvalidConfig(f"[shadow] has no key '{key[:64]}'{near}")
    target = table.get("version", "canary")
    target = str(target) if type(target) is int else target
    labels = (*known, "stable", "canary")
    if not isinstance(target, str) or not (_is_version(target) or target in labels):
        raise InvalidConfig(
            f"[shadow] version is to be a version's number or one of the labels "
            f"{', '.join(labels)}, got {repr(target)[:64]}"
        )
    redact = table.get("redact", [])
    if not isinstance(redact, list) or not all(isinstance(each, str) for each in redact):
        raise InvalidConfig("[shadow] redact is to be a list of names of tensors")
    numbers = {name: _number(table, name, *_NUMBERS[name]) for name in _NUMBERS if name in table}
    return Shadow(target, **numbers, redact=frozenset(redact))


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and not text.startswith("0") and len(text) < 20


def _number(table: Mapping[str, Any], name: str, least: float, most: float) -> Any:
    given = table[name]
    is_number = isinstance(given, int if isinstance(least, int) else int | float)
    if is_number and not isinstance(given, bool) and least <= given <= most:
        return given
    raise InvalidConfig(
        f"[shadow] {name} is to be a number from {least:g} to {most:g}, got {repr(given)[:64]}"
    )

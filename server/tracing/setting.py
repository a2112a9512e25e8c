"""What is traced, as the trace extension sets it: values are texts, `null` gives one back. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trivet.backends.api import InvalidRequest, Unsupported

Change = Sequence[str] | None
"""The texts of a value; None: as it is without this change."""
Fields = Mapping[str, tuple[str, ...] | int]
"""Some fields of a TraceSetting."""
LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
MAX_NUMBER = 2**31 - 1
_LEAST = {"trace_rate": 0, "trace_count": -1, "log_frequency": 0}
"""The numbers, and the least that each may be."""
_FIXED = {
    "trace_file": "trace file location can not be updated through network protocol",
    "trace_mode": "trace mode can not be updated through network protocol",
}


@dataclass(frozen=True, slots=True)
class TraceSetting:
    """Which requests are traced, and how closely."""

    levels: tuple[str, ...] = ("OFF",)
    rate: int = 1000
    """One request of so many; 0: none."""
    count: int = -1
    """So many more; -1: any number."""
    log_frequency: int = 0
    """Traces per file; 0: all in one."""

    @property
    def is_active(self) -> bool:
        """Whether any request may be traced."""
        return self.levels != ("OFF",) and self.rate != 0 and self.count != 0

    @property
    def has_tensors(self) -> bool:
        """Whether tensors are noted, too."""
        return "TENSORS" in self.levels

    def with_fields(self, fields: Fields) -> "TraceSetting":
        """With other values."""
        changed = dict(fields)
        return replace(self, **changed)  # type: ignore[arg-type]  # each is of its field's type


def parse_changes(changes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...] | int]:
    """The fields that these texts set. Raises InvalidRequest; names are checked before."""
    return {field_of(name): _value(name, values) for name, values in changes.items()}


def check_names(changes: Mapping[str, Change]) -> None:
    """Raises InvalidRequest for a name that is none, Unsupported for what only a start changes."""
    for name in changes:
        if name in _FIXED:
            raise Unsupported(_FIXED[name])
        if name != "trace_level" and name not in _LEAST:
            known = ", ".join(("trace_level", *_LEAST))
            raise InvalidRequest(f"unknown trace setting '{name[:64]}'; known are {known}")


def field_of(name: str) -> str:
    """Where a TraceSetting has what the extension calls by this name."""
    return "levels" if name == "trace_level" else name.removeprefix("trace_")


def _value(name: str, values: Sequence[str]) -> tuple[str, ...] | int:
    if name == "trace_level":
        return _levels(values)
    if len(values) != 1:
        raise InvalidRequest(f"trace setting '{name}' takes one value, got {len(values)}")
    return _number(name, values[0])


def _levels(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value not in LEVELS:
            raise InvalidRequest(
                f"unknown trace level '{value[:64]}'; known are {', '.join(LEVELS)}"
            )
    if not values or ("OFF" in values and len(set(values)) > 1):
        raise InvalidRequest(
            f"trace setting 'trace_level' takes OFF alone, or TIMESTAMPS, TENSORS or both, got "
            f"{list(values)[:4]}"
        )
    return tuple(level for level in LEVELS if level in values)


def _number(name: str, text: str) -> int:
    digits = text.removeprefix("-")
    value = int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else None
    if value is None or not _LEAST[name] <= value <= MAX_NUMBER:
        raise InvalidRequest(
            f"trace setting '{name}' must be a whole number from {_LEAST[name]} to {MAX_NUMBER}, "
            f"got '{text[:64]}'"
        )
    return value

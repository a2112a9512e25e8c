"""What a file says of its model."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import LoadFailed


class NotComputed(LoadFailed):
    """A family reads a value with which it computes nothing, though the model may be a right one:
    whoever computes it otherwise may."""


class Described(dict[str, Any]):
    """A config.json, or GGUF metadata. Raises LoadFailed for what it should say and does not, and
    for what it says and nobody can compute."""

    def __init__(
        self, values: Mapping[str, Any], source: str, spelled: Mapping[str, str] | None = None
    ) -> None:
        """`spelled`: the file's own names of keys that have others here."""
        super().__init__(values)
        self._source = source
        self._spelled = spelled or {}

    def __missing__(self, name: str) -> Any:
        named = self._spelled.get(name, name)
        raise LoadFailed(f"{self._source} has no '{named}', which the model needs")

    def renamed(self, names: Mapping[str, str]) -> "Described":
        """With other names for some keys: `names` are those in the file, and ours."""
        ours = {names.get(name, name): value for name, value in self.items()}
        return Described(ours, self._source, self._spelled)

    def having(self, **values: Any) -> "Described":
        """With other values for some keys."""
        return Described({**self, **values}, self._source, self._spelled)

    def without(self, *names: str) -> "Described":
        """As if it did not give some keys."""
        kept = {name: value for name, value in self.items() if name not in names}
        return Described(kept, self._source, self._spelled)

    def within(self, name: str) -> "Described":
        """What stands in an object of it; nothing where there is none."""
        given = self.get(name) or {}
        if not isinstance(given, Mapping):
            raise LoadFailed(f"{self._source} has {name} {given!r}; it must be an object")
        return Described(given, f"{self._source}, {name},")

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number above 0; `default` where the file gives none or null."""
        value = self.get(name)
        if value is None:
            if default is not None:
                return default
            value = self[name]  # which raises, but for null
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise LoadFailed(
                f"{self._source} has {name} {value!r}; it must be a whole number above 0"
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number; `default` where the file gives none or null."""
        value = self.get(name)
        if value is None:
            if default is not None:
                return default
            value = self[name]  # which raises, but for null
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LoadFailed(f"{self._source} has {name} {value!r}; it must be a number")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false; `default` where the file does not say, false for null."""
        value = self.get(name, default)
        if value is not None and not isinstance(value, bool):
            raise LoadFailed(f"{self._source} has {name} {value!r}; it must be true or false")
        return bool(value)

    def only(self, name: str, *computed: Any) -> None:
        """Raises NotComputed where the file gives a key another value than those that are
        computed; the first is what counts where it does not give it."""
        value = self.get(name, computed[0])
        if value not in computed:
            raise NotComputed(
                f"{self._source} has {name} {value!r}, with which this architecture is not "
                f"computed; {_told(computed)}"
            )


def _told(computed: Sequence[Any]) -> str:
    values = " and ".join(repr(value) for value in computed)
    return f"{values} {'are' if len(computed) > 1 else 'is'}"

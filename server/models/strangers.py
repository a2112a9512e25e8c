"""What lies in the repositories and nothing takes for a model, with the sentences that help."""

import logging
from collections.abc import Container, Mapping
from pathlib import PurePath

from trivet.backends.api.naming import name_in, namespace_in
from trivet.server.models.known import IndexRow, State
from trivet.server.repository.layout import EMPTY

log = logging.getLogger(__name__)


class Strangers:
    """Kept for the index and for who asks for one of them by name. Owned by the event loop."""

    def __init__(self) -> None:
        self._advice: dict[str, str] = {}

    @property
    def advice(self) -> Mapping[str, str]:
        """By name of the folder or file."""
        return self._advice

    def rows(self, *, is_alone: bool) -> list[IndexRow]:
        """For the index: what is taken for no model, or that there is nothing at all (`is_alone`:
        there are no other rows); never silence."""
        strangers = sorted(self._advice.items())
        if not strangers and is_alone:
            strangers = [("", EMPTY)]
        shown = State.UNAVAILABLE.value
        return [
            IndexRow(name_in(key), namespace_in(key), state=shown, reason=reason)
            for key, reason in strangers
        ]

    def has(self, name: str) -> bool:
        """Whether one has that name, or is a file that would be a model of that name."""
        return any(name in (each, PurePath(each).stem) for each in self._advice)

    def note(self, name: str, advice: str) -> None:
        """It was seen; the log says so once for each advice."""
        if self._advice.get(name) != advice:
            log.warning("'%s' is not taken for a model: %s", name, advice)
        self._advice[name] = advice

    def forget(self, name: str) -> None:
        """It is gone, or is a model now."""
        self._advice.pop(name, None)

    def keep_only(self, names: Container[str]) -> None:
        """Only these are still what nothing takes for a model."""
        self._advice = {name: text for name, text in self._advice.items() if name in names}

    def warn_of_nothing(self) -> None:
        """Nothing in the repositories might serve."""
        log.warning("%s", EMPTY)

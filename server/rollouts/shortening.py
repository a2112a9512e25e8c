"""A journal without what nobody needs any more. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trivet.server.rollouts.book import MOST_HISTORY, Book, Event, is_whole
from trivet.server.rollouts.journal import Record

_TELLS_ALL = (Event.PROGRESS, Event.PROMOTED, Event.ROLLED_BACK, Event.ABORTED)
"""After these nobody asks how far the roll-out was before."""


def shortened(records: Iterable[Record]) -> list[Record]:
    """The same state and history. How far a roll-out was goes where it has come further since, and
    of a model's history what is not shown any more: what had come of that then stands for it. What
    no book reads is left out."""
    models: dict[str, _Model] = {}
    for record in filter(is_whole, records):
        models.setdefault(record["model"], _Model()).add(record)
    return [record for model in models.values() for record in model.kept()]


@dataclass(slots=True)
class _Model:
    """One model's records. They are told by their order among themselves alone."""

    records: list[Record] = field(default_factory=list)
    _progress: int | None = None
    """Where among them is how far the roll-out is that goes on."""

    def add(self, record: Record) -> None:
        """The next one."""
        event = record["event"]
        if self._progress is not None and event in _TELLS_ALL:
            del self.records[self._progress]
            self._progress = None
        if event == Event.PROGRESS:
            self._progress = len(self.records)
        self.records.append(record)

    def kept(self) -> list[Record]:
        """With what stands for the first ones in their place, where these are too many."""
        num_over = len(self.records) - MOST_HISTORY
        if num_over < MOST_HISTORY:
            return self.records
        book, cut = Book(), 0
        known: Mapping[str, object] = {}
        for number, record in enumerate(self.records[:num_over], 1):
            book.apply(record)
            entry = book.of(record["model"])
            if entry.running is None:
                cut, known = number, entry.known()
        if not cut:
            return self.records
        last = self.records[cut - 1]
        summary = {**last, "n": f"{last['n']}+", "event": Event.KNOWN.value, "known": known}
        return [summary, *self.records[cut:]]

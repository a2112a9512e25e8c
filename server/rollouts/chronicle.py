"""The book and its journal together: what happens is in both, and whoever listens hears of it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from trivet.server.rollouts.book import Book, Event
from trivet.server.rollouts.journal import Journal, Record
from trivet.server.rollouts.writing import Writer

SERVER = "server"
"""Who does what nobody has asked for."""


class Listener(Protocol):
    """Hears of each event."""

    def happened(self, record: Record) -> None:
        """Never blocks."""


class Chronicle:
    """Owned by the event loop."""

    def __init__(self, journal: Journal, listener: Listener | None = None) -> None:
        self.book = Book()
        self._listener = listener
        self._writer = Writer(journal, self._hear)
        self._changed: Callable[[str], None] = lambda _: None

    async def start(self, changed: Callable[[str], None]) -> None:
        """Reads what was written before. `changed` is told the models that others have decided
        about since. Raises OSError."""
        await self._writer.start()
        self._changed = changed

    async def close(self) -> None:
        """All is written down."""
        await self._writer.close()

    @property
    def leads(self) -> bool:
        """Whether this server decides."""
        return self._writer.leads

    def happens(self, key: str, event: Event, by: str = SERVER, **fields: object) -> None:
        """Makes it so, and writes it down. Raises a ServingError or ValueError for what cannot
        be."""
        record = self._record(key, event, by, fields)
        self.book.perform(record)
        self._tell(record)

    def happened(self, key: str, event: Event, by: str = SERVER, **fields: object) -> None:
        """Writes down what is so already."""
        record = self._record(key, event, by, fields)
        self.book.note(record)
        self._tell(record)

    def _record(self, key: str, event: Event, by: str, fields: Mapping[str, object]) -> Record:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"n": uuid4().hex, "at": at, "by": by, "model": key, "event": event.value, **fields}

    def _tell(self, record: Record) -> None:
        self._writer.write(record)
        if self._listener is not None and record["event"] != Event.PROGRESS:
            self._listener.happened(record)

    def _hear(self, records: list[Record]) -> None:
        news = [record for record in records if self.book.apply(record)]
        for key in {str(each["model"]) for each in news if each["event"] != Event.PROGRESS}:
            self._changed(key)

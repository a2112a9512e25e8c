"""The last lines of the log, for who looks at it in a browser."""

import logging
import time
from collections import deque
from dataclasses import dataclass

KEPT = 2000
MOST_CHARACTERS = 4096
"""Of a line; of a longer one the beginning is kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """One, as it is told."""

    number: int
    t: int
    """Milliseconds of Unix time."""
    level: str
    logger: str
    text: str
    request_id: str = ""
    model: str = ""


class RecentLines(logging.Handler):
    """Any thread may log. Levels that the server's log has not switched on never come here."""

    def __init__(self) -> None:
        super().__init__()
        self.started_ms = int(time.time() * 1e3)
        self._number = 0
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging, which holds the lock."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self._formatter.formatException(record.exc_info)
        elif record.exc_text:
            text += "\n" + record.exc_text
        told = record.__dict__
        self._number += 1
        self._lines.append(
            Line(
                self._number,
                int(record.created * 1e3),
                record.levelname.lower(),
                told.get("printed_by") or record.name,
                text[:MOST_CHARACTERS],
                str(told.get("request_id", "")),
                str(told.get("model", "")),
            )
        )

    def since(self, number: int) -> list[Line]:
        """Those after the one of that number, 0 for all."""
        assert self.lock is not None, "made by logging.Handler"
        with self.lock:
            lines = list(self._lines)
            if number > self._number:
                return lines
        return [line for line in lines if line.number > number]

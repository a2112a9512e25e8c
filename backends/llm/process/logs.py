"""What an engine's process logs, in the server's log: one place decides how lines look and which
there are."""

import logging
import traceback
from collections.abc import Callable

from trivet.backends.llm.messages import Logged, Message


class SendingHandler(logging.Handler):
    """The engine's side: hands every line to the server."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        error = record.exc_info[1] if record.exc_info else None
        trace = "" if error is None else "".join(traceback.format_exception(error)).rstrip()
        self._send(Logged(record.levelno, record.name, record.getMessage(), trace))


def log_of_engine(name: str, message: Logged) -> None:
    """The server's side."""
    logger = logging.getLogger(message.logger)
    if not logger.isEnabledFor(message.level):
        return
    record = logger.makeRecord(
        message.logger,
        message.level,
        "engine",
        0,
        "engine of %s: %s",
        (name, message.text),
        None,
        extra={"model": name},
    )
    record.exc_text = message.trace or None
    logger.handle(record)

"""What an engine's process logs, in the server's log: one place decides how lines look and which
there are."""

import logging
import os
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
        more = record.__dict__
        pid, printed_by = more.get("pid", os.getpid()), more.get("printed_by", "")
        text = record.getMessage()
        self._send(Logged(record.levelno, record.name, text, trace, pid, printed_by))


def log_of_engine(name: str, message: Logged) -> None:
    """The server's side."""
    logger = logging.getLogger(message.logger)
    if not logger.isEnabledFor(message.level):
        return
    extra: dict[str, object] = {"model": name, "pid": message.pid}
    text = f"engine of {name}: {message.text}"
    if message.printed_by:
        extra["printed_by"] = f"{name} {message.printed_by}"
        text = message.text
    record = logger.makeRecord(
        message.logger, message.level, "engine", 0, "%s", (text,), None, extra=extra
    )
    record.exc_text = message.trace or None
    logger.handle(record)

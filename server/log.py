"""Log lines: Triton's default format, ISO 8601 times, or one JSON object a line."""

import datetime as dt
import json
import logging
import os
import sys

from trivet.server.settings import Settings

_LETTERS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "E"}
_FIELDS = ("request_id", "model", "version", "method", "path", "status", "elapsed_ms")
"""Extra fields that a log call may give with `extra={...}`."""
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F) if code != 0x0A}


class LineFormatter(logging.Formatter):
    """One readable line; continuation lines (tracebacks) are indented, so that no client text can
    pretend to be a line of its own."""

    def __init__(self, *, iso8601: bool) -> None:
        super().__init__()
        self._iso8601 = iso8601

    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        letter = _LETTERS.get(record.levelname, "I")
        if self._iso8601:
            head = f"{moment.isoformat(timespec='microseconds')} {letter}"
        else:
            head = f"{letter}{moment:%m%d %H:%M:%S.%f}"
        extra = "".join(f" {k}={v}" for k, v in _extra(record).items())
        text = escaped(record.getMessage() + extra).replace("\n", "\\n")
        line = f"{head} {os.getpid()} {record.filename}:{record.lineno}] {text}"
        if record.exc_info:
            trace = escaped(self.formatException(record.exc_info))
            line += "\n    " + trace.replace("\n", "\n    ")
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, msg, logger, and the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        fields: dict[str, object] = {
            "ts": moment.isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def escaped(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return text.translate(_ESCAPES)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}


class _LevelFilter(logging.Filter):
    """Lets through the levels that the settings allow."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._allowed = {
            logging.DEBUG: settings.log_verbose > 0,
            logging.INFO: settings.log_info,
            logging.WARNING: settings.log_warning,
            logging.ERROR: settings.log_error,
            logging.CRITICAL: settings.log_error,
        }

    def filter(self, record: logging.LogRecord) -> bool:
        return self._allowed.get(record.levelno, True)


def setup_logging(settings: Settings) -> None:
    """Sends the log where the settings say. Raises OSError when the file cannot be opened."""
    if settings.log_file:
        handler: logging.Handler = logging.FileHandler(settings.log_file)
    else:
        handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(LineFormatter(iso8601=settings.log_format == "ISO8601"))
    handler.addFilter(_LevelFilter(settings))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if settings.log_verbose else logging.INFO)
    # Libraries talk at debug level about every connection.
    for noisy in ("asyncio", "aiohttp", "watchfiles", "hpack"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

"""Log lines: Triton's default format, ISO 8601 times, or one JSON object a line."""

import datetime as dt
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from trivet.server.logs.setting import LogSetting
from trivet.server.settings import Settings

_LETTERS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "E"}
_FIELDS = ("request_id", "model", "version", "method", "path", "status", "elapsed_ms")
"""Extra fields that a log call may give with `extra={...}`."""
_JSON_FIELDS = (*_FIELDS, "pid", "printed_by")
"""`pid`: of another process that says so. `printed_by`: what that has printed, not logged."""
LOSSES_PERIOD_S = 60.0
"""Time between two words about lines that were lost."""
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F) if code != 0x0A}


class LineFormatter(logging.Formatter):
    """One readable line; continuation lines (tracebacks) are indented, so that no client text can
    pretend to be a line of its own."""

    def __init__(self, *, iso8601: bool) -> None:
        super().__init__()
        self._iso8601 = iso8601

    def format(self, record: logging.LogRecord) -> str:
        if printed_by := record.__dict__.get("printed_by"):
            return f"[{printed_by}] {escaped(record.getMessage().expandtabs())}"
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        letter = _LETTERS.get(record.levelname, "I")
        if self._iso8601:
            head = f"{moment.isoformat(timespec='microseconds')} {letter}"
        else:
            head = f"{letter}{moment:%m%d %H:%M:%S.%f}"
        extra = "".join(f" {k}={v}" for k, v in _extra(record).items())
        text = escaped(record.getMessage() + extra).replace("\n", "\\n")
        line = f"{head} {os.getpid()} {record.filename}:{record.lineno}] {text}"
        if trace := _trace(self, record):
            line += "\n    " + escaped(trace).replace("\n", "\n    ")
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
            **_extra(record, _JSON_FIELDS),
        }
        if trace := _trace(self, record):
            fields["exception"] = trace
        return json.dumps(fields, default=str)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """In lines; of another process it comes as a text."""
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def escaped(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return text.translate(_ESCAPES)


def _extra(record: logging.LogRecord, names: Sequence[str] = _FIELDS) -> dict[str, object]:
    return {name: record.__dict__[name] for name in names if name in record.__dict__}


class _LevelFilter(logging.Filter):
    """Lets through the levels that the setting allows."""

    def __init__(self, setting: LogSetting) -> None:
        super().__init__()
        self._allowed = {
            logging.DEBUG: setting.verbose_level > 0,
            logging.INFO: setting.info,
            logging.WARNING: setting.warning,
            logging.ERROR: setting.error,
            logging.CRITICAL: setting.error,
        }

    def filter(self, record: logging.LogRecord) -> bool:
        # What was printed has no level.
        return "printed_by" in record.__dict__ or self._allowed.get(record.levelno, True)


_NOISY = ("asyncio", "aiohttp", "watchfiles", "hpack", "httpx2", "httpcore2", "urllib3", "botocore")
"""Libraries that talk about every connection; those that fetch models, with signed addresses."""


class _Lossy(logging.Handler):
    """Base of handlers that may lose lines (a full disk, a closed pipe): said once a minute on
    standard error, with how many, and never in the way of a request."""

    _quiet_until_s = 0.0
    _num_lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's name
        """See logging: called with the exception that is being handled."""
        self._num_lost += 1
        now_s = time.monotonic()
        if now_s < self._quiet_until_s:
            return
        self._quiet_until_s = now_s + LOSSES_PERIOD_S
        with suppress(OSError, ValueError):
            error = sys.exc_info()[1]
            sys.stderr.write(f"the log cannot be written: {error}; {self._num_lost} line(s) lost\n")
            sys.stderr.flush()
            self._num_lost = 0


class _File(_Lossy, logging.FileHandler):
    """A file that is appended to."""


class _Stream(_Lossy, logging.StreamHandler[TextIO]):
    """Standard error."""


class Log:
    """The process's log: where it goes is settled at start, what it shows may change."""

    def __init__(self, setting: LogSetting) -> None:
        """Raises OSError when the file cannot be opened."""
        self.setting = setting
        self._handler = _File(setting.file) if setting.file else _Stream(sys.stderr)
        root = logging.getLogger()
        for old in list(root.handlers):
            root.removeHandler(old)
        root.addHandler(self._handler)
        for noisy in _NOISY:
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.change(setting)

    def change(self, setting: LogSetting) -> None:
        """Shows from now on what the setting says, in its format."""
        self.setting = setting
        if setting.format == "json":
            self._handler.setFormatter(JsonFormatter())
        else:
            self._handler.setFormatter(LineFormatter(iso8601=setting.format == "ISO8601"))
        for old in list(self._handler.filters):
            self._handler.removeFilter(old)
        self._handler.addFilter(_LevelFilter(setting))
        logging.getLogger().setLevel(logging.DEBUG if setting.verbose_level else logging.INFO)


def setup_logging(settings: Settings) -> Log:
    """Sends the log where the settings say. Raises OSError when the file cannot be opened."""
    return Log(
        LogSetting(
            settings.log_file,
            settings.log_info,
            settings.log_warning,
            settings.log_error,
            settings.log_verbose,
            settings.log_format,
        )
    )

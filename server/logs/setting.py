"""What the log shows, as the logging extension reads and changes it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trivet.backends.api import InvalidRequest, Unsupported

FORMATS = ("default", "ISO8601", "json")
MAX_VERBOSE_LEVEL = 2**31 - 1
LogValue = bool | int | str
_FLAGS = ("log_info", "log_warning", "log_error")
_KNOWN = ("log_file", *_FLAGS, "log_verbose_level", "log_format")


@dataclass(frozen=True, slots=True)
class LogSetting:
    """Where the log goes ("": standard error), which levels it has and how its lines look."""

    file: str = ""
    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    format: str = "default"

    def describe(self) -> dict[str, LogValue]:
        """As the logging extension has it."""
        values = (
            self.file, self.info, self.warning, self.error, self.verbose_level, self.format
        )  # fmt: skip
        return dict(zip(_KNOWN, values, strict=True))

    def changed(self, changes: Mapping[str, object]) -> "LogSetting":
        """With other values. Raises InvalidRequest, and Unsupported for the file: who may talk to
        the server may not choose where it writes."""
        given: dict[str, LogValue] = {}
        for name, value in changes.items():
            if name == "log_file":
                raise Unsupported("log file location can not be updated through network protocol")
            if name not in _KNOWN:
                raise InvalidRequest(
                    f"unknown log setting '{name[:64]}'; known are {', '.join(_KNOWN[1:])}"
                )
            given[name.removeprefix("log_")] = _checked(name, value)
        return replace(self, **given)  # type: ignore[arg-type]  # each is of its field's type


def _checked(name: str, value: object) -> LogValue:
    if name in _FLAGS:
        if isinstance(value, bool):
            return value
        raise InvalidRequest(f"log setting '{name}' must be true or false, got {_shown(value)}")
    if name == "log_format":
        if isinstance(value, str) and value in FORMATS:
            return value
        raise InvalidRequest(
            f"log setting 'log_format' must be one of {', '.join(FORMATS)}, got {_shown(value)}"
        )
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VERBOSE_LEVEL:
        return value
    raise InvalidRequest(
        f"log setting 'log_verbose_level' must be a whole number from 0 to {MAX_VERBOSE_LEVEL}, "
        f"got {_shown(value)}"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 64 else f"{text[:61]}..."

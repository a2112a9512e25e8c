"""The option --trace-config: what is traced from the start, and where traces go. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit, urlunsplit

from trivet.backends.api import InvalidConfig, InvalidRequest
from trivet.server.tracing.setting import TraceSetting, parse_changes

TRITON, OPENTELEMETRY = "triton", "opentelemetry"
_SETTINGS = {"rate": "trace_rate", "count": "trace_count", "log-frequency": "log_frequency"}
_NUMBERS = {
    "bsp_max_queue_size": "max_queue_size",
    "bsp_schedule_delay": "schedule_delay_ms",
    "bsp_max_export_batch_size": "max_export_batch_size",
}


@dataclass(frozen=True, slots=True)
class OpenTelemetryConfig:
    """Where spans go, and in which batches."""

    url: str = "http://localhost:4318/v1/traces"
    resource: tuple[tuple[str, str], ...] = (("service.name", "trivet"),)
    max_queue_size: int = 2048
    schedule_delay_ms: int = 5000
    max_export_batch_size: int = 512

    @property
    def shown_url(self) -> str:
        """Without a password that may be in it."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """All that the option's values say together."""

    mode: str = TRITON
    setting: TraceSetting = field(default_factory=TraceSetting)
    file: str = ""
    opentelemetry: OpenTelemetryConfig = field(default_factory=OpenTelemetryConfig)

    @property
    def has_target(self) -> bool:
        """Whether traces have somewhere to go."""
        return self.mode == OPENTELEMETRY or bool(self.file)

    @classmethod
    def parse(cls, rows: Sequence[str]) -> "TraceConfig":
        """From the values of the option. Raises InvalidConfig, naming the value."""
        config = cls()
        changes: dict[str, list[str]] = {}
        for row in rows:
            key, sign, value = row.partition("=")
            if not (sign and value):
                raise _wrong(row, "it is no KEY=VALUE")
            owner, comma, name = key.partition(",")
            if not comma:
                owner, name = "", key
            config = _taken(config, changes, row, (owner, name, value))
        try:
            config = replace(config, setting=config.setting.with_fields(parse_changes(changes)))
        except InvalidRequest as error:
            raise InvalidConfig(f"--trace-config: {error.message}") from None
        return _checked(config)


def _taken(
    config: TraceConfig, changes: dict[str, list[str]], row: str, parts: tuple[str, str, str]
) -> TraceConfig:
    owner, name, value = parts
    if owner in ("", TRITON) and name in _SETTINGS:
        changes[_SETTINGS[name]] = [value]
    elif (owner, name) == ("", "level"):
        changes.setdefault("trace_level", []).append(value)
    elif (owner, name) == ("", "mode"):
        if value not in (TRITON, OPENTELEMETRY):
            raise _wrong(row, f"modes are {TRITON} and {OPENTELEMETRY}")
        return replace(config, mode=value)
    elif (owner, name) == (TRITON, "file"):
        return replace(config, file=value)
    elif owner == OPENTELEMETRY:
        return replace(config, opentelemetry=_opentelemetry(config.opentelemetry, row, name, value))
    else:
        raise _wrong(
            row,
            "known are mode, level, rate, count, triton,file, triton,log-frequency, "
            "opentelemetry,url, opentelemetry,resource and opentelemetry,bsp_*",
        )
    return config


def _opentelemetry(
    config: OpenTelemetryConfig, row: str, name: str, value: str
) -> OpenTelemetryConfig:
    if name == "url":
        # Without a scheme it is http, as for Triton's exporter.
        url = value if "://" in value else f"http://{value}"
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise _wrong(row, "the address is HOST:PORT/PATH or begins with http:// or https://")
        return replace(config, url=url)
    if name == "resource":
        key, sign, text = value.partition("=")
        if not (sign and key):
            raise _wrong(row, "a resource is KEY=VALUE")
        return replace(config, resource=tuple({**dict(config.resource), key: text}.items()))
    if name not in _NUMBERS:
        raise _wrong(row, f"known are url, resource, {', '.join(_NUMBERS)}")
    if not (value.isascii() and value.isdigit() and int(value[:10]) > 0 and len(value) < 10):
        raise _wrong(row, "it takes a whole number from 1")
    changed: dict[str, int] = {_NUMBERS[name]: int(value)}
    return replace(config, **changed)  # type: ignore[arg-type]  # the names are of numbers


def _checked(config: TraceConfig) -> TraceConfig:
    batches = config.opentelemetry
    if batches.max_export_batch_size > batches.max_queue_size:
        raise InvalidConfig(
            f"--trace-config: bsp_max_export_batch_size {batches.max_export_batch_size} exceeds "
            f"bsp_max_queue_size {batches.max_queue_size}"
        )
    if config.setting.is_active and not config.has_target:
        raise InvalidConfig(
            "--trace-config: traces have nowhere to go; add triton,file=PATH or mode=opentelemetry"
        )
    return config


def _wrong(row: str, why: str) -> InvalidConfig:
    return InvalidConfig(f"--trace-config '{row[:200]}' means nothing: {why}")

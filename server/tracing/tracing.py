"""The server's tracing: its settings, which the trace extension reads and changes, and its target.

Off costs a request one look at `Tracing.tracer`.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from trivet.server.tracing.config import OPENTELEMETRY, TraceConfig
from trivet.server.tracing.record import Trace
from trivet.server.tracing.sampling import Sampler
from trivet.server.tracing.setting import Change, Fields, check_names, field_of, parse_changes
from trivet.server.tracing.tracer import Tracer

log = logging.getLogger(__name__)
CLOSE_TIMEOUT_S = 5.0
Described = dict[str, str | list[str]]


class Target(Protocol):
    """Where traces go."""

    def take(self, trace: Trace) -> None:
        """On the event loop; never blocks, never raises."""

    def close(self, timeout_s: float) -> None:
        """Passes on what it holds, for about as long as that. Called in a thread, once."""


class Tracing:
    """Owned by the event loop."""

    def __init__(self, config: TraceConfig | None = None, beside: Target | None = None) -> None:
        """`beside` gets them besides where the config says. Raises InvalidConfig where the target
        needs what is not installed."""
        self._config = config or TraceConfig()
        self._target = _joined(_open(self._config), beside)
        self._setting = self._config.setting
        self._overrides: dict[str, dict[str, tuple[str, ...] | int]] = {}
        self._everything = Sampler(self._setting)
        self._models: dict[str, Sampler] = {}
        self.tracer: Tracer | None = None
        """None while nothing is traced."""
        self._switch()

    def describe(self, model: str = "") -> Described:
        """The settings of a model, or of all without their own, as the trace extension has it."""
        config = self._config
        setting = self._models.get(model, self._everything).setting
        described: Described = {
            "trace_level": list(setting.levels),
            "trace_rate": str(setting.rate),
            "trace_count": str(setting.count),
        }
        if config.mode == OPENTELEMETRY:
            return {**described, "trace_mode": config.mode, **_shown(config)}
        described["log_frequency"] = str(setting.log_frequency)
        described["trace_file"] = config.file
        described["trace_mode"] = config.mode
        return described

    def update(self, changes: Mapping[str, Change], model: str = "") -> None:
        """Changes settings; None gives one back: a model's to all models', theirs to the start's.

        Raises InvalidRequest and Unsupported, and then nothing is changed.
        """
        check_names(changes)
        given = parse_changes({name: v for name, v in changes.items() if v is not None})
        cleared = [field_of(name) for name, values in changes.items() if values is None]
        if model:
            self._change_model(model, given, cleared)
        else:
            at_start = {name: getattr(self._config.setting, name) for name in cleared}
            self._setting = self._everything.setting.with_fields({**at_start, **given})
            self._everything = Sampler(self._setting)
            self._models = {name: self._sampler(own) for name, own in self._overrides.items()}
        self._switch()

    def _change_model(self, model: str, given: Fields, cleared: Sequence[str]) -> None:
        own = {**self._overrides.get(model, {}), **given}
        for name in cleared:
            own.pop(name, None)
        if own:
            self._overrides[model] = own
            self._models[model] = self._sampler(own)
        else:
            self._overrides.pop(model, None)
            self._models.pop(model, None)

    def _sampler(self, own: Fields) -> Sampler:
        return Sampler(self._setting.with_fields(own))

    def _switch(self) -> None:
        samplers = (self._everything, *self._models.values())
        is_wanted = any(each.is_active for each in samplers)
        self.tracer = None
        if is_wanted and self._target is not None:
            self.tracer = Tracer(self._everything, self._models, self._target.take)
        elif is_wanted:
            log.warning(
                "requests are to be traced, but traces have nowhere to go: start the server with "
                "--trace-config triton,file=PATH or --trace-config mode=opentelemetry"
            )

    async def close(self) -> None:
        """Passes on what is held."""
        self.tracer = None
        target, self._target = self._target, None
        if target is not None:
            await asyncio.to_thread(target.close, CLOSE_TIMEOUT_S)


class _Both:
    """A `Target` of two."""

    def __init__(self, first: Target, second: Target) -> None:
        self._targets = (first, second)

    def take(self, trace: Trace) -> None:
        """Each gets the same."""
        for target in self._targets:
            target.take(trace)

    def close(self, timeout_s: float) -> None:
        """One after another."""
        for target in self._targets:
            target.close(timeout_s)


def _joined(target: Target | None, beside: Target | None) -> Target | None:
    if target is None or beside is None:
        return target or beside
    return _Both(target, beside)


def _open(config: TraceConfig) -> Target | None:
    if config.mode == OPENTELEMETRY:
        from trivet.server.tracing.otlp import OpenTelemetryTarget

        return OpenTelemetryTarget(config.opentelemetry)
    if config.file:
        from trivet.server.tracing.triton_file import TritonFileTarget

        return TritonFileTarget(config.file)
    return None


def _shown(config: TraceConfig) -> dict[str, str]:
    about = config.opentelemetry
    return {
        "url": about.shown_url,
        "resource": ",".join(f"{name}={value}" for name, value in about.resource),
        "bsp_max_queue_size": str(about.max_queue_size),
        "bsp_schedule_delay": str(about.schedule_delay_ms),
        "bsp_max_export_batch_size": str(about.max_export_batch_size),
    }

"""Metrics that user code makes up. The server keeps them, for all instances that have them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from trivet.backends.api import ServingError
from trivet.backends.api.meters import Meter, MeterChange, MeterKind, Meters
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.fields import text_in

METERS: ContextVar[Meters] = ContextVar("meters")


class ThreadsMeters:
    """Where threads that user code has started keep metrics: a process of one model knows that."""

    def __init__(self) -> None:
        self.meters: Meters | None = None


THREADS_METERS = ThreadsMeters()


class Metric:
    """One time series of a family, as long as somebody refers to it. Any thread may call."""

    def __init__(self, family: "MetricFamily", meter: Meter, meters: Meters) -> None:
        """Raises TritonModelException."""
        self._family = family  # which goes when its last metric has gone
        self._meter = meter
        self._meters = meters
        self._is_open = False
        with _told():
            meters.open(meter)
        self._is_open = True

    def __del__(self) -> None:
        if self._is_open:
            self._meters.close(self._meter)

    def increment(self, value: float) -> None:
        """Adds to a counter (never less than 0) or a gauge."""
        self._require("increment", MeterKind.COUNTER, MeterKind.GAUGE)
        if self._meter.kind is MeterKind.COUNTER and not value >= 0:
            raise TritonModelException(f"a counter cannot be incremented by {value}")
        self._change(MeterChange.INCREMENT, value)

    def set(self, value: float) -> None:
        """Sets a gauge."""
        self._require("set", MeterKind.GAUGE)
        self._change(MeterChange.SET, value)

    def observe(self, value: float) -> None:
        """Adds an observation to a histogram."""
        self._require("observe", MeterKind.HISTOGRAM)
        self._change(MeterChange.OBSERVE, value)

    def value(self) -> float:
        """The value of a counter or gauge, with what other instances have added."""
        self._require("value", MeterKind.COUNTER, MeterKind.GAUGE)
        with _told():
            return self._meters.value(self._meter)

    def _change(self, how: MeterChange, value: float) -> None:
        with _told():
            self._meters.change(self._meter, how, float(value))

    def _require(self, operation: str, *kinds: MeterKind) -> None:
        if self._meter.kind not in kinds:
            kind = self._meter.kind.value
            raise TritonModelException(f"a {kind} has no operation '{operation}'")


class MetricFamily:
    """A named metric with one time series per set of labels, as long as somebody refers to it."""

    COUNTER = MeterKind.COUNTER
    GAUGE = MeterKind.GAUGE
    HISTOGRAM = MeterKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: MeterKind) -> None:
        """Raises TritonModelException: where nobody keeps metrics, for a name that is the server's
        or is none, and for one that is there with another description or kind."""
        self._is_open = False
        if not isinstance(kind, MeterKind):
            raise TritonModelException(
                f"metric '{name}': the kind is MetricFamily.COUNTER, GAUGE or HISTOGRAM"
            )
        meters = METERS.get(None) or THREADS_METERS.meters
        if meters is None:
            raise TritonModelException(
                "metrics can be made while this model is loaded and while it serves: in "
                "initialize, execute and what they start; not in auto_complete_config, and not in "
                'threads of a model that shares the server\'s process (isolation "none")'
            )
        self.name = text_in(str(name), "a metric's name")
        self.description = text_in(str(description), f"the description of metric '{name}'")
        self._meter = Meter(self.name, self.description, kind)
        self._meters = meters
        with _told():
            meters.open(self._meter)
        self._is_open = True

    def __del__(self) -> None:
        if self._is_open:
            self._meters.close(self._meter)

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The time series of these labels; a histogram needs rising bucket bounds."""
        kind = self._meter.kind
        if (kind is MeterKind.HISTOGRAM) != bool(buckets):
            raise TritonModelException(
                f"metric '{self.name}': buckets are needed for a histogram and only for one"
            )
        bounds = [float(bound) for bound in buckets or ()]
        if bounds != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise TritonModelException(f"metric '{self.name}': bucket bounds must rise")
        pairs = tuple(sorted((labels or {}).items()))
        if not all(isinstance(text, str) for pair in pairs for text in pair):
            raise TritonModelException(f"metric '{self.name}': labels are texts")
        for pair in pairs:
            for text in pair:
                text_in(text, f"a label of metric '{self.name}'")
        meter = Meter(self.name, self.description, kind, pairs, tuple(bounds))
        return Metric(self, meter, self._meters)


@contextmanager
def keeping(meters: Meters | None) -> Iterator[None]:
    """User code that runs meanwhile may make metrics."""
    if meters is None:
        yield
        return
    token = METERS.set(meters)
    try:
        yield
    finally:
        METERS.reset(token)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ServingError as error:
        raise TritonModelException(error.message) from None

"""Custom metrics of user code: kept where they are made, not exported to /metrics yet."""

import bisect
import threading
from collections.abc import Mapping, Sequence
from enum import Enum

from trivet.backends.python.model_api.errors import TritonModelException


class MetricKind(Enum):
    """What a family's metrics count."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric:
    """One time series of a family. Any thread may call.

    Its value lives in the model's own process; the server does not export it in this version.
    """

    def __init__(self, kind: MetricKind, bounds: Sequence[float] = ()) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._value = 0.0
        self._bounds = list(bounds)
        self._counts = [0] * (len(self._bounds) + 1)

    def increment(self, value: float) -> None:
        """Adds to a counter (never less than 0) or a gauge."""
        self._require("increment", MetricKind.COUNTER, MetricKind.GAUGE)
        if self._kind is MetricKind.COUNTER and value < 0:
            raise TritonModelException(f"a counter cannot be incremented by {value}")
        with self._lock:
            self._value += value

    def set(self, value: float) -> None:
        """Sets a gauge."""
        self._require("set", MetricKind.GAUGE)
        self._value = value

    def observe(self, value: float) -> None:
        """Adds an observation to a histogram."""
        self._require("observe", MetricKind.HISTOGRAM)
        with self._lock:
            self._counts[bisect.bisect_left(self._bounds, value)] += 1

    def value(self) -> float:
        """The value of a counter or gauge."""
        self._require("value", MetricKind.COUNTER, MetricKind.GAUGE)
        return self._value

    def _require(self, operation: str, *kinds: MetricKind) -> None:
        if self._kind not in kinds:
            raise TritonModelException(f"a {self._kind.value} has no operation '{operation}'")


class MetricFamily:
    """A named metric with one time series per set of labels.

    Values are kept in the model's process only; exporting them is not offered in this version.
    """

    COUNTER = MetricKind.COUNTER
    GAUGE = MetricKind.GAUGE
    HISTOGRAM = MetricKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        self.name = name
        self.description = description
        self._kind = kind
        self._metrics: dict[tuple[tuple[str, str], ...], Metric] = {}

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The time series of these labels; a histogram needs rising bucket bounds."""
        if (self._kind is MetricKind.HISTOGRAM) != bool(buckets):
            raise TritonModelException(
                f"metric '{self.name}': buckets are needed for a histogram and only for one"
            )
        if list(buckets or ()) != sorted(set(buckets or ())):
            raise TritonModelException(f"metric '{self.name}': bucket bounds must rise")
        key = tuple(sorted((labels or {}).items()))
        return self._metrics.setdefault(key, Metric(self._kind, buckets or ()))

"""Metrics that models make up themselves: what they say of them, and who keeps them."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, runtime_checkable

from trivet.backends.api.backend import Backend

Labels = tuple[tuple[str, str], ...]


class MeterKind(Enum):
    """What a family's time series count."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MeterChange(Enum):
    """What is done to a time series."""

    INCREMENT = "increment"
    SET = "set"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Meter:
    """A family of metrics, or one of its time series."""

    name: str
    description: str
    kind: MeterKind
    labels: Labels | None = None
    """Sorted; None: the family itself."""
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets, rising; the last bucket has none."""

    @property
    def family(self) -> "Meter":
        """What it belongs to."""
        return replace(self, labels=None, bounds=())


class Meters(Protocol):
    """The metrics of one owner. A meter is there as long as anybody holds it. Any thread may call;
    errors are ServingErrors."""

    def open(self, meter: Meter) -> None:
        """Holds it once more. Raises InvalidRequest where it contradicts what others hold."""

    def close(self, meter: Meter) -> None:
        """Holds it once less. Never waits: objects say so when they are let go of."""

    def change(self, meter: Meter, how: MeterChange, value: float) -> None:
        """Of an open time series."""

    def value(self, meter: Meter) -> float:
        """Of an open counter or gauge."""

    def release(self) -> None:
        """The owner is gone, with all that it holds."""


class MeterStore(Protocol):
    """Keeps the metrics of all owners."""

    def owned(self) -> Meters:
        """For a new owner, such as an instance of a model."""


@runtime_checkable
class MakesMeters(Protocol):
    """A backend whose models make up metrics."""

    def metered(self, store: MeterStore) -> Backend:
        """The backend, with where to keep them."""

"""The metrics that models make up themselves, on the page beside the server's own."""

import re
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from trivet.backends.api import Histogram, InvalidRequest
from trivet.backends.api.meters import Labels, Meter, MeterChange, MeterKind, Meters
from trivet.server.metrics.text import Page, Sample, buckets

OWN_PREFIXES = (
    "nv_", "trivet_", "vllm:", "tgi_", "process_cpu_seconds", "process_max_fds", "process_open_fds",
    "process_resident_memory_bytes", "process_start_time_seconds", "process_virtual_memory_bytes",
)  # fmt: skip
"""Of the server's own names."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(slots=True)
class _Series:
    meter: Meter
    value: float = 0.0
    holders: Counter[int] = field(default_factory=Counter)
    histogram: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.histogram = Histogram(self.meter.bounds)


@dataclass(slots=True)
class _Family:
    meter: Meter
    holders: Counter[int] = field(default_factory=Counter)
    series: dict[Labels, _Series] = field(default_factory=dict)


class CustomMetrics:
    """The `MeterStore`. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {}
        self._num_owners = 0
        self._let_go: deque[tuple[int, Meter]] = deque()
        """Not held any more. Objects may be let go of while the lock is held, so it waits here."""

    def owned(self) -> Meters:
        """See MeterStore."""
        with self._lock:
            self._num_owners += 1
            return _OwnedMeters(self, self._num_owners)

    def write(self, page: Page) -> None:
        """All that is held."""
        with self._lock:
            self._settle()
            for name, family in sorted(self._families.items()):
                help_text = family.meter.description.replace("\\", r"\\").replace("\n", r"\n")
                page.family(name, family.meter.kind.value, help_text, _samples(family))

    # -- for owners ----------------------------------------------------------------------------

    def open(self, owner: int, meter: Meter) -> None:
        """See Meters."""
        with self._lock:
            self._settle()
            family = self._families.get(meter.name) or self._new_family(meter)
            if family.meter != meter.family:
                raise InvalidRequest(
                    f"metric '{meter.name}' is there already, as a {family.meter.kind.value} "
                    f"described as '{family.meter.description}'; another one needs another name"
                )
            holders = family.holders if meter.labels is None else self._series(family, meter)
            holders[owner] += 1

    def close(self, owner: int, meter: Meter) -> None:
        """See Meters."""
        self._let_go.append((owner, meter))

    def change(self, meter: Meter, how: MeterChange, value: float) -> None:
        """See Meters."""
        with self._lock:
            series = self._find(meter)
            if how is MeterChange.INCREMENT:
                series.value += value
            elif how is MeterChange.SET:
                series.value = value
            else:
                series.histogram.observe(value)

    def value(self, meter: Meter) -> float:
        """See Meters."""
        with self._lock:
            return self._find(meter).value

    def release(self, owner: int) -> None:
        """See Meters."""
        with self._lock:
            self._settle()
            for family in list(self._families.values()):
                family.holders.pop(owner, None)
                for labels, series in list(family.series.items()):
                    series.holders.pop(owner, None)
                    if not series.holders:
                        del family.series[labels]
                self._forget_unheld(family)

    def _new_family(self, meter: Meter) -> _Family:
        if not _NAME.fullmatch(meter.name):
            raise InvalidRequest(f"'{meter.name[:64]}' is no name of a metric: [a-zA-Z0-9_:] only")
        if meter.name.startswith(OWN_PREFIXES):
            raise InvalidRequest(
                f"metric '{meter.name[:64]}': names that begin with {', '.join(OWN_PREFIXES)} are "
                "the server's own"
            )
        for family in self._families.values():
            if not _sample_names(family.meter).isdisjoint(_sample_names(meter)):
                raise InvalidRequest(
                    f"metric '{meter.name[:64]}' has a name that {family.meter.kind.value} "
                    f"'{family.meter.name}' has on the page, too"
                )
        return self._families.setdefault(meter.name, _Family(meter.family))

    def _series(self, family: _Family, meter: Meter) -> Counter[int]:
        assert meter.labels is not None
        for name, _ in meter.labels:
            if not _LABEL.fullmatch(name) or (name == "le" and meter.bounds):
                self._forget_unheld(family)
                raise InvalidRequest(f"metric '{meter.name}': '{name[:64]}' is no name of a label")
        series = family.series.setdefault(meter.labels, _Series(meter))
        if series.meter.bounds != meter.bounds:
            raise InvalidRequest(
                f"metric '{meter.name}': it has buckets {list(series.meter.bounds)} for these "
                "labels already"
            )
        return series.holders

    def _find(self, meter: Meter) -> _Series:
        family = self._families.get(meter.name)
        series = None if family is None else family.series.get(meter.labels or ())
        if series is None:
            raise InvalidRequest(f"metric '{meter.name[:64]}' is not there any more")
        return series

    def _settle(self) -> None:
        while self._let_go:
            owner, meter = self._let_go.popleft()
            family = self._families.get(meter.name)
            if family is None:
                continue
            if meter.labels is None:
                _drop(family.holders, owner)
            elif (series := family.series.get(meter.labels)) is not None:
                _drop(series.holders, owner)
                if not series.holders:
                    del family.series[meter.labels]
            self._forget_unheld(family)

    def _forget_unheld(self, family: _Family) -> None:
        if not family.series and not family.holders:
            self._families.pop(family.meter.name, None)


class _OwnedMeters:
    """The `Meters` of one owner."""

    def __init__(self, store: CustomMetrics, owner: int) -> None:
        self._store = store
        self._owner = owner

    def open(self, meter: Meter) -> None:
        self._store.open(self._owner, meter)

    def close(self, meter: Meter) -> None:
        self._store.close(self._owner, meter)

    def change(self, meter: Meter, how: MeterChange, value: float) -> None:
        self._store.change(meter, how, value)

    def value(self, meter: Meter) -> float:
        return self._store.value(meter)

    def release(self) -> None:
        self._store.release(self._owner)


def _drop(holders: Counter[int], owner: int) -> None:
    if holders[owner] > 1:
        holders[owner] -= 1
    else:
        holders.pop(owner, None)


def _sample_names(meter: Meter) -> set[str]:
    if meter.kind is not MeterKind.HISTOGRAM:
        return {meter.name}
    return {meter.name, *(f"{meter.name}_{part}" for part in ("bucket", "sum", "count"))}


def _samples(family: _Family) -> Iterator[Sample]:
    for labels, series in sorted(family.series.items()):
        shown = dict(labels)
        if family.meter.kind is MeterKind.HISTOGRAM:
            yield from buckets(family.meter.name, [(shown, series.histogram)])
        else:
            yield family.meter.name, shown, series.value

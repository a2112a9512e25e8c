"""The text of a Prometheus page: families, samples, histograms, in either of its two formats."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite, isnan
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_CONTENT_TYPE

from trivet.backends.api import Histogram
from trivet.server.metrics.summary import Summary

Labels = dict[str, str]
Known = dict[tuple[tuple[str, str], ...], str]
"""Labels as they are written."""
Sample = tuple[str, Labels, float]
_LAST = frozenset({"le", "quantile"})
_TOTAL = "_total"


class Format(Enum):
    """How a page is written; the value is its content type."""

    TEXT = CONTENT_TYPE_LATEST
    """Prometheus's text format."""
    OPENMETRICS = OPENMETRICS_CONTENT_TYPE


class Labelled(Protocol):
    """A model version, as metrics tell it from others."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def namespace(self) -> str: ...


def labels_of(model: Labelled) -> Labels:
    """What tells a model version from others."""
    labels = {"model": model.name, "version": str(model.version)}
    return {**labels, "namespace": model.namespace} if model.namespace else labels


class Page:
    """Writes the text exposition format 0.0.4 or OpenMetrics 1.0.

    prometheus_client's own counters end in `_total`, which Triton's names do not; so the few lines
    of the formats are written here. A series has the same name in both: OpenMetrics, which knows a
    counter by that ending, is told that the type of Triton's is unknown.
    """

    def __init__(self, form: Format = Format.TEXT, known: Known | None = None) -> None:
        """`known`: of the page before, in the same format."""
        self._is_open = form is Format.OPENMETRICS
        self._lines: list[str] = []
        self._known: Known = known or {}
        self.written: Known = {}
        """Of this page: a model's come in each of its families, and in the next page again."""

    def family(self, name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> None:
        """One metric with its samples; left out when it has none."""
        lines = [
            f"{sample}{self._labels(labels)} {_number(value)}\n"
            for sample, labels, value in samples
        ]
        if not lines:
            return
        if self._is_open:
            help_text = help_text.replace('"', r"\"")
            if kind == "counter":
                kind = "counter" if name.endswith(_TOTAL) else "unknown"
                name = name.removesuffix(_TOTAL)
        self._lines += (f"# HELP {name} {help_text}\n", f"# TYPE {name} {kind}\n", *lines)

    def text(self) -> str:
        """The whole page."""
        return "".join([*self._lines, "# EOF\n" if self._is_open else ""])

    def _labels(self, labels: Labels) -> str:
        key = tuple(labels.items())
        written = self.written.get(key)
        if written is None:
            written = self.written[key] = self._known.get(key) or self._write(key)
        return written

    def _write(self, labels: tuple[tuple[str, str], ...]) -> str:
        if not labels:
            return ""
        pairs = (
            f'{name}="{self._value(name, value)}"' for name, value in sorted(labels, key=_place)
        )
        return "{" + ",".join(pairs) + "}"

    def _value(self, name: str, value: str) -> str:
        if self._is_open and name in _LAST and value != "+Inf":
            return repr(float(value))
        return _escaped(value)


def _place(label: tuple[str, str]) -> tuple[bool, str]:
    """By name, `le` and `quantile` last, as Triton's page has them: scripts look for its lines."""
    return label[0] in _LAST, label[0]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    if not isfinite(value):
        return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


@dataclass(frozen=True, slots=True)
class Unit:
    """What turns a histogram's numbers into the metric's, and its bounds in the metric's unit."""

    scale: float
    bounds: tuple[float, ...]


def buckets(
    name: str, histograms: Iterable[tuple[Labels, Histogram]], unit: Unit | None = None
) -> Iterator[Sample]:
    """A histogram family's samples."""
    for labels, histogram in histograms:
        bounds = histogram.bounds if unit is None else unit.bounds
        cumulative = 0
        for bound, count in zip((*bounds, float("inf")), histogram.counts, strict=True):
            cumulative += count
            text = "+Inf" if bound == float("inf") else _number(bound)
            yield f"{name}_bucket", {**labels, "le": text}, cumulative
        yield f"{name}_sum", labels, histogram.total * (1.0 if unit is None else unit.scale)
        yield f"{name}_count", labels, cumulative


def observed(
    histograms: Iterable[tuple[Labels, Histogram]],
) -> Iterator[tuple[Labels, Histogram]]:
    """Those that have seen a value: a hundred models that nobody has asked yet would else fill
    nine tenths of the page with zeros."""
    return ((labels, histogram) for labels, histogram in histograms if any(histogram.counts))


def summarised(
    name: str, summaries: Iterable[tuple[Labels, Summary]], quantiles: Sequence[float]
) -> Iterator[Sample]:
    """A summary family's samples in microseconds, of summaries in nanoseconds."""
    for labels, summary in summaries:
        values = summary.quantiles(quantiles)
        for quantile, value_ns in zip(quantiles, values, strict=True):
            yield name, {**labels, "quantile": f"{quantile:g}"}, value_ns / 1000
        yield f"{name}_sum", labels, summary.total / 1000
        yield f"{name}_count", labels, summary.count

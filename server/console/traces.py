"""The last traces, for who looks at them in a browser. Owned by the event loop."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from trivet.server.tracing.record import SeenTensor, Span, Trace

KEPT = 256
MOST_SPANS = 512
"""Of a trace; of a longer one the first are kept."""
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    trace: Trace
    tensors: dict[int, list[Document]]
    """What was seen of them, but for their values, by span."""


class RecentTraces:
    """A `Target` of traces."""

    def __init__(self) -> None:
        self._number = 0
        self._traces: deque[_Kept] = deque(maxlen=KEPT)

    def take(self, trace: Trace) -> None:
        """Keeps it, without the values of tensors, which may be large."""
        spans = trace.spans[:MOST_SPANS]
        tensors = {each.id: [_tensor(seen) for seen in each.tensors] for each in spans}
        bare = [replace(each, tensors=[]) if each.tensors else each for each in spans]
        self._number += 1
        self._traces.append(_Kept(self._number, replace(trace, spans=bare), tensors))

    def close(self, timeout_s: float) -> None:
        """There is nothing to pass on."""

    def newest(self, may_see: Callable[[str], bool]) -> list[Document]:
        """Those whose first model may be seen, the newest first. Models are the empty text where a
        request found none."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        kept = reversed(self._traces)
        return [_document(each, offset_ns) for each in kept if may_see(_model(each.trace))]


def _model(trace: Trace) -> str:
    return next((span.model_name for span in trace.spans if span.model_name), "")


def _document(kept: _Kept, offset_ns: int) -> Document:
    spans = kept.trace.spans
    first_ns = min((span.started_ns for span in spans), default=0)
    return {
        "number": kept.number,
        "trace_id": f"{kept.trace.trace_id:032x}",
        "t": (first_ns + offset_ns) // 1_000_000,
        "model": _model(kept.trace),
        "request_id": next((span.request_id for span in spans if span.request_id), ""),
        "error": next((span.error for span in spans if span.error), ""),
        "us": (max((span.ended_ns for span in spans), default=0) - first_ns) / 1e3,
        "spans": [_span(each, first_ns, kept.tensors[each.id]) for each in spans],
    }


def _span(span: Span, first_ns: int, tensors: list[Document]) -> Document:
    return {
        "id": f"{span.id:016x}",
        "parent": f"{span.parent_id:016x}" if span.parent_id else "",
        "name": span.name,
        "model": span.model_name,
        "version": span.model_version,
        "from_us": (span.started_ns - first_ns) / 1e3,
        "to_us": (span.ended_ns - first_ns) / 1e3,
        "stages": dict(_stages(span, first_ns)),
        "copied": {kind.value: size for kind, size in (span.copied_bytes or {}).items()},
        "waits": span.host_synchronisations,
        "attributes": span.attributes,
        "tensors": tensors,
        "error": span.error,
    }


def _stages(span: Span, first_ns: int) -> Iterator[tuple[str, tuple[float, float]]]:
    """Where a model's time went: from and to, in microseconds."""
    if span.stages is None:
        return
    at = span.stages
    names = ("queue", "input", "compute", "output")
    marks = (at.queued_ns, at.started_ns, at.gathered_ns, at.computed_ns, at.ended_ns)
    for name, (begun_ns, ended_ns) in zip(names, pairwise(marks), strict=True):
        yield name, ((begun_ns - first_ns) / 1e3, (ended_ns - first_ns) / 1e3)


def _tensor(seen: SeenTensor) -> Document:
    return {
        "activity": seen.activity,
        "name": seen.name,
        "datatype": seen.datatype,
        "shape": list(seen.values.shape),
    }

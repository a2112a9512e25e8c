"""Traces in Triton's form: files of one JSON array each, written by a thread of their own."""

import itertools
import json
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trivet.server.logs.outage import Outage
from trivet.server.tracing.record import SeenTensor, Span, Trace

log = logging.getLogger(__name__)
MAX_WAITING = 1024
"""Traces that may wait to be written; further ones are lost."""


class TritonFileTarget:
    """Owns the file and the thread that writes to it."""

    def __init__(self, path: str) -> None:
        self._writer = _Writer(Path(path))
        self._waiting: queue.Queue[Trace | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="trace file", daemon=True)
        self._thread.start()

    def take(self, trace: Trace) -> None:
        """Hands a trace to the thread; never blocks."""
        try:
            self._waiting.put_nowait(trace)
        except queue.Full:
            self._writer.lost("the disk is too slow")

    def close(self, timeout_s: float) -> None:
        """Writes what waits and completes the file."""
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (trace := self._waiting.get()) is not None:
            self._writer.write(trace)
        self._writer.close()


class _Writer:
    """Writes arrays: one file, or, with a log frequency, one of so many traces after another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: _Array | None = None
        self._num_traces = 0
        self._file_numbers = itertools.count()
        self._ids = itertools.count(1)
        self._outage = Outage()

    def write(self, trace: Trace) -> None:
        """On the thread. What cannot be written is lost, which is said once a minute."""
        try:
            if self._file is None:
                self._file = self._open(is_numbered=trace.log_frequency > 0)
            self._file.add(list(_entries(trace, self._ids)))
        except OSError as error:
            self.lost(error.strerror or "it cannot be written")
            return
        if self._outage.ends():
            log.info("traces are written to %s again", self._path)
        self._num_traces += 1
        if trace.log_frequency and self._num_traces >= trace.log_frequency:
            self.close()

    def _open(self, *, is_numbered: bool) -> "_Array":
        path = self._path
        if is_numbered:
            path = path.with_name(f"{path.name}.{next(self._file_numbers)}")
        self._num_traces = 0
        return _Array(path)

    def close(self) -> None:
        """Completes the array."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            self.lost(error.strerror or "it cannot be written")

    def lost(self, why: str) -> None:
        """Says so, once a minute."""
        if self._outage.goes_on():
            log.warning("traces are lost, they cannot be written to %s: %s", self._path, why)


class _Array:
    """A file of one JSON array. A part that could not be written whole is written over by the next,
    so that what comes after a fault of the disk can be read."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, as all methods do."""
        self._file = path.open("wb", buffering=0)
        self._is_empty = True
        self._whole_bytes = 0
        self._is_torn = False

    def add(self, entries: Sequence[Mapping[str, object]]) -> None:
        """Appends all of them or none."""
        if entries:
            self._append(("[" if self._is_empty else ",") + ",".join(map(json.dumps, entries)))
            self._is_empty = False

    def close(self) -> None:
        """Ends the array."""
        with self._file:
            self._append("[]" if self._is_empty else "]")

    def _append(self, text: str) -> None:
        if self._is_torn and self._file.seekable():
            self._file.seek(self._whole_bytes)
            self._file.truncate()
        self._is_torn = True
        data = text.encode()
        written = 0
        while written < len(data):
            written += self._file.write(data[written:])
        self._is_torn = False
        self._whole_bytes += written


def _entries(trace: Trace, ids: Iterator[int]) -> Iterator[dict[str, object]]:
    """The objects of a trace: for each model's part who it is, when it did what, and its tensors.

    The request itself is no part of its own in this form: its times are its model's.
    """
    numbers: dict[int, int] = {}
    for span in trace.spans:
        if not span.model_name:
            continue
        numbers[span.id] = number = next(ids)
        about: dict[str, object] = {
            "id": number,
            "model_name": span.model_name,
            "model_version": span.model_version,
        }
        if span.request_id:
            about["request_id"] = span.request_id
        if span.parent_id in numbers:
            about["parent_id"] = numbers[span.parent_id]
        yield about
        yield {"id": number, "timestamps": _timestamps(trace, span)}
        for tensor in span.tensors:
            yield {"id": number, "activity": tensor.activity, "tensor": _tensor(tensor)}


def _timestamps(trace: Trace, span: Span) -> list[dict[str, object]]:
    stamps = list(span.stamps)
    first = trace.spans[0]
    if span.parent_id == first.id and not first.model_name:
        stamps += first.stamps
    stamps.sort(key=lambda stamp: stamp.ns)
    return [{"name": stamp.name, "ns": stamp.ns} for stamp in stamps]


def _tensor(tensor: SeenTensor) -> dict[str, str]:
    values = tensor.values
    return {
        "name": tensor.name,
        "data": ",".join(map(_text, values.reshape(-1).tolist())),
        "shape": ",".join(map(str, values.shape)),
        "dtype": tensor.datatype,
    }


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)

"""Traces in Triton's form: files of one JSON array each, written by a thread of their own."""

import itertools
import json
import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

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
        self._file: IO[str] | None = None
        self._num_in_file = 0
        self._num_traces = 0
        self._file_numbers = itertools.count()
        self._ids = itertools.count(1)
        self._has_failed = False

    def write(self, trace: Trace) -> None:
        """On the thread. What cannot be written is lost, which is said once."""
        try:
            if self._file is None:
                self._file = self._open(is_numbered=trace.log_frequency > 0)
            for entry in _entries(trace, self._ids):
                self._file.write("," if self._num_in_file else "[")
                self._file.write(json.dumps(entry))
                self._num_in_file += 1
            self._file.flush()
        except OSError as error:
            self.lost(error.strerror or "it cannot be written")
            return
        self._num_traces += 1
        if trace.log_frequency and self._num_traces >= trace.log_frequency:
            self.close()

    def _open(self, *, is_numbered: bool) -> IO[str]:
        path = self._path
        if is_numbered:
            path = path.with_name(f"{path.name}.{next(self._file_numbers)}")
        self._num_in_file = 0
        self._num_traces = 0
        return path.open("w", encoding="utf-8")

    def close(self) -> None:
        """Completes the array."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.write("]" if self._num_in_file else "[]")
            file.close()
        except OSError as error:
            self.lost(error.strerror or "it cannot be written")

    def lost(self, why: str) -> None:
        """Says so, the first time."""
        if not self._has_failed:
            self._has_failed = True
            log.warning("traces are lost, they cannot be written to %s: %s", self._path, why)


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

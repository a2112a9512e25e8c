"""What the models have counted, and what the process takes. On the event loop, every few seconds;
models that nobody has asked in between cost three comparisons each."""

import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import psutil

from trivet.backends.api import Measured
from trivet.backends.device.nvml import Gpus
from trivet.server.console.history import Counts
from trivet.server.core import Counters, Served
from trivet.server.scheduling.statistics import DURATION_BOUNDS_S, ModelStatistics

_Version = tuple[str, str, int]
"""Namespace, name and number."""


class Readable(Counters, Protocol):
    """What is read."""


class ModelReader:
    """Remembers what it has read, and tells what came since."""

    def __init__(self, core: Readable) -> None:
        self._core = core
        self._marks: dict[_Version, tuple[int, int, int]] = {}
        self._before: dict[_Version | Served, Counts] = {}

    def read(self) -> Mapping[str, list[Counts]]:
        """By model, of those that did anything since this was asked last."""
        measured = self._core.measured()
        generating = {served.name for served in measured}
        found: dict[str, list[Counts]] = {}
        for served, model in measured.items():
            self._note(found, served.name, served, _generated(model))
        for statistics in self._core.all_statistics():
            # Language models count themselves, and more.
            if statistics.name not in generating and (key := self._changed(statistics)) is not None:
                self._note(found, statistics.name, key, _computed(statistics))
        return found

    def _changed(self, statistics: ModelStatistics) -> _Version | None:
        key = statistics.namespace, statistics.name, statistics.version
        mark = statistics.last_inference_ms, statistics.failed.count, statistics.pending
        before, self._marks[key] = self._marks.get(key, (0, 0, 0)), mark
        return key if mark != before or statistics.pending else None

    def _note(
        self,
        found: dict[str, list[Counts]],
        name: str,
        key: _Version | Served,
        counts: Counts,
    ) -> None:
        gained = counts.since(self._before.get(key))
        self._before[key] = counts
        if gained.answered or gained.failed or gained.waiting or gained.tokens or gained.cache:
            found.setdefault(name, []).append(gained)


def _computed(model: ModelStatistics) -> Counts:
    return Counts(
        DURATION_BOUNDS_S,
        tuple(model.histograms["request"].counts),
        model.histograms["queue"].total / 1e9,
        model.failed.count,
        model.execution_count,
        model.batch_sizes.total,
        hits=model.cache_hits.count,
        waiting=model.pending,
    )


def _generated(model: Measured) -> Counts:
    counted, engine = model.statistics, model.stats
    finished, steps = counted.finished, counted.step_tokens
    return Counts(
        counted.request_s.bounds,
        tuple(counted.request_s.counts),
        counted.queue_s.total,
        finished["error"] + sum(counted.rejected.values()) + sum(counted.failed.values()),
        sum(steps.counts),
        steps.total,
        counted.num_generated_tokens,
        waiting=int(engine.get("waiting", 0)),
        cache=engine.get("kv_usage"),
    )


class MachineReader:
    """Of this process and its machine."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._process = psutil.Process()
        self._computed_s = time.process_time()

    @property
    def has_gpus(self) -> bool:
        """Whether there are any, whose driver takes milliseconds to answer."""
        return bool(self._gpus.all)

    def read(self, seconds: float) -> dict[str, float]:
        """Now, and since this was asked last, so many seconds ago."""
        before, self._computed_s = self._computed_s, time.process_time()
        machine = psutil.virtual_memory()
        return {
            "cores": (self._computed_s - before) / seconds,
            "resident_bytes": self._process.memory_info().rss,
            "used_bytes": machine.total - machine.available,
            "total_bytes": machine.total,
        }

    def read_gpus(self) -> dict[str, float]:
        """What is used of the memory of all GPUs together. In a thread."""
        return dict(self._gpu_figures())

    def _gpu_figures(self) -> Iterator[tuple[str, float]]:
        read = [reading for each in self._gpus.all if (reading := self._gpus.try_read(each))]
        if read:
            yield "gpu_used_bytes", sum(each.used_bytes for each in read)
            yield "gpu_total_bytes", sum(each.total_bytes for each in read)

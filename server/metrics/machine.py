"""The machine on the metrics page: CPU, memory, GPUs and the event loop's lateness."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from prometheus_client import ProcessCollector

from trivet.backends.device.gpus import pinned_memory
from trivet.backends.device.nvml import GpuInfo, GpuReading, Gpus
from trivet.server.metrics.text import Page

LATENESS_PERIOD_S = 0.1
_PROCESS = ProcessCollector(registry=None)


@dataclass(frozen=True, slots=True)
class GpuMetric:
    """One of Triton's metrics of GPUs."""

    name: str
    kind: str
    help: str
    value: Callable[[GpuReading], float | None]


GPU_METRICS = (
    GpuMetric(
        "nv_gpu_utilization", "gauge", "GPU utilization rate [0.0 - 1.0)", lambda r: r.utilization
    ),
    GpuMetric(
        "nv_gpu_memory_total_bytes", "gauge", "GPU total memory, in bytes", lambda r: r.total_bytes
    ),
    GpuMetric(
        "nv_gpu_memory_used_bytes", "gauge", "GPU used memory, in bytes", lambda r: r.used_bytes
    ),
    GpuMetric("nv_gpu_power_usage", "gauge", "GPU power usage in watts", lambda r: r.power_w),
    GpuMetric(
        "nv_gpu_power_limit",
        "gauge",
        "GPU power management limit in watts",
        lambda r: r.power_limit_w,
    ),
    GpuMetric(
        "nv_energy_consumption",
        "counter",
        "GPU energy consumption in joules since the driver was loaded",
        lambda r: r.energy_j,
    ),
)


class Machine:
    """CPU, memory, GPUs and the event loop's lateness, read at intervals. Owned by the loop."""

    def __init__(
        self, interval_s: float, gpus: Gpus | None = None, *, shows_cpu: bool = True
    ) -> None:
        self._shows_cpu = shows_cpu
        self._interval_s = interval_s
        self._gpus = gpus or Gpus.none("none were looked for")
        self._gpu_readings: dict[GpuInfo, GpuReading] = {}
        self._cpu_utilization = 0.0
        self._memory = psutil.virtual_memory()
        self._lateness_s = 0.0
        self._worst_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to read."""
        self._task = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """Stops reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        read_at_s = time.monotonic()
        while True:
            due_s = time.monotonic() + LATENESS_PERIOD_S
            await asyncio.sleep(LATENESS_PERIOD_S)
            now_s = time.monotonic()
            self._worst_s = max(self._worst_s, now_s - due_s)
            if now_s - read_at_s >= self._interval_s:
                read_at_s = now_s
                self._lateness_s, self._worst_s = self._worst_s, 0.0
                self._cpu_utilization = psutil.cpu_percent() / 100
                self._memory = psutil.virtual_memory()
                if self._gpus.all:
                    # A driver takes milliseconds to answer, and longer when a GPU is in trouble.
                    self._gpu_readings = await asyncio.to_thread(self._read_gpus)

    def _read_gpus(self) -> dict[GpuInfo, GpuReading]:
        read = {info: self._gpus.try_read(info) for info in self._gpus.all}
        return {info: reading for info, reading in read.items() if reading is not None}

    def write(self, page: Page) -> None:
        """The last readings."""
        lateness = "trivet_event_loop_lateness_seconds"
        help_text = "How late the event loop was at worst in the last interval"
        page.family(lateness, "gauge", help_text, [(lateness, {}, self._lateness_s)])
        if self._shows_cpu:
            self._write_cpu(page)
        for metric in GPU_METRICS:
            values = [
                (metric.name, {"gpu_uuid": info.uuid}, told)
                for info, reading in self._gpu_readings.items()
                if (told := metric.value(reading)) is not None
            ]
            page.family(metric.name, metric.kind, metric.help, values)

    def _write_cpu(self, page: Page) -> None:
        used = self._memory.total - self._memory.available
        pinned = pinned_memory()
        for name, help_text, value in (
            (
                "nv_pinned_memory_pool_total_bytes",
                "Pinned memory pool total memory size, in bytes",
                pinned.total_bytes,
            ),
            (
                "nv_pinned_memory_pool_used_bytes",
                "Pinned memory pool used memory size, in bytes",
                pinned.used_bytes,
            ),
            ("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", self._cpu_utilization),
            ("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", self._memory.total),
            ("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", used),
        ):
            page.family(name, "gauge", help_text, [(name, {}, value)])


def write_process(page: Page) -> None:
    """What every exporter tells of its own process: CPU, memory, descriptors, start."""
    for metric in _PROCESS.collect():
        samples = [(sample.name, sample.labels, sample.value) for sample in metric.samples]
        page.family(samples[0][0], metric.type, metric.documentation, samples)

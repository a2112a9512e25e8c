"""The Prometheus page: Triton's nv_* names to the letter, and histograms of every stage.

Nothing here is on the request path: a scrape reads the models' counters.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence

import psutil
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from trivet.backends.api import InvalidConfig
from trivet.server.core import Core
from trivet.server.settings import Settings
from trivet.server.statistics import (
    DURATION_BOUNDS_S,
    STAGES,
    FailureReason,
    Histogram,
    ModelStatistics,
)

Labels = dict[str, str]
Sample = tuple[str, Labels, float]
LATENESS_PERIOD_S = 0.1


def parse_metrics_config(given: Sequence[str]) -> dict[str, bool]:
    """The `--metrics-config` switches. Raises InvalidConfig for one that is not known."""
    switches = {"counter_latencies": True, "histogram_latencies": True}
    for text in given:
        name, _, value = text.partition("=")
        if name not in switches or value.lower() not in ("true", "false"):
            raise InvalidConfig(
                f"--metrics-config {text}: known are counter_latencies=true|false and "
                "histogram_latencies=true|false (quantile summaries are not offered: histograms "
                "of every stage cost less and add up over servers)"
            )
        switches[name] = value.lower() == "true"
    return switches


class Page:
    """Writes the text exposition format 0.0.4.

    prometheus_client's own counters end in `_total`, which Triton's names do not; so the few lines
    of the format are written here.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> None:
        """One metric with its samples; left out when it has none."""
        lines = [
            f"{sample}{_labels(labels)} {_number(value)}\n" for sample, labels, value in samples
        ]
        if lines:
            self._lines += (f"# HELP {name} {help_text}\n", f"# TYPE {name} {kind}\n", *lines)

    def text(self) -> str:
        """The whole page."""
        return "".join(self._lines)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def write_models(page: Page, models: Sequence[ModelStatistics], switches: dict[str, bool]) -> None:
    """Everything about models."""
    labelled = [(_model_labels(model), model) for model in models]

    def counter(name: str, help_text: str, values: Iterable[tuple[Labels, float]]) -> None:
        page.family(name, "counter", help_text, ((name, labels, v) for labels, v in values))

    counter(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        ((labels, model.succeeded.count) for labels, model in labelled),
    )
    counter(
        "nv_inference_request_failure",
        "Number of failed inference requests, all batch sizes",
        (
            ({**labels, "reason": reason.value}, model.failures[reason])
            for labels, model in labelled
            for reason in FailureReason
        ),
    )
    counter(
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        ((labels, model.inference_count) for labels, model in labelled),
    )
    counter(
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        ((labels, model.execution_count) for labels, model in labelled),
    )
    if switches["counter_latencies"]:
        for stage in STAGES:
            counter(
                f"nv_inference_{stage}_duration_us",
                f"Cumulative inference {stage.replace('_', ' ')} duration in microseconds",
                ((labels, _total_us(model, stage)) for labels, model in labelled),
            )
    _write_gauges(page, labelled)
    if switches["histogram_latencies"]:
        _write_histograms(page, labelled)


def _write_gauges(page: Page, labelled: list[tuple[Labels, ModelStatistics]]) -> None:
    pending, load = "nv_inference_pending_request_count", "nv_model_load_duration_secs"
    page.family(
        pending,
        "gauge",
        "Instantaneous number of pending requests awaiting execution per-model",
        ((pending, labels, model.pending) for labels, model in labelled),
    )
    page.family(
        load,
        "gauge",
        "Model load time in seconds",
        ((load, labels, model.load_duration_s) for labels, model in labelled),
    )


def _write_histograms(page: Page, labelled: list[tuple[Labels, ModelStatistics]]) -> None:
    first = "nv_inference_first_response_histogram_ms"
    page.family(
        first,
        "histogram",
        "Duration from request to first response in milliseconds",
        _buckets(first, [(labels, m.first_responses) for labels, m in labelled], 1.0),
    )
    for stage in STAGES:
        name = f"trivet_inference_{stage}_duration_seconds"
        page.family(
            name,
            "histogram",
            f"Duration of the stage {stage} per request in seconds",
            _buckets(name, [(labels, m.histograms[stage]) for labels, m in labelled], 1e-9),
        )
    size = "trivet_inference_batch_size"
    page.family(
        size,
        "histogram",
        "Batch items per model execution",
        _buckets(size, [(labels, m.batch_sizes) for labels, m in labelled], 1.0),
    )


def _buckets(
    name: str, histograms: list[tuple[Labels, Histogram]], scale: float
) -> Iterator[Sample]:
    """A histogram family's samples; `scale` turns its unit into the metric's."""
    for labels, histogram in histograms:
        bounds = DURATION_BOUNDS_S if scale != 1.0 else histogram.bounds
        cumulative = 0
        for bound, count in zip((*bounds, float("inf")), histogram.counts, strict=True):
            cumulative += count
            text = "+Inf" if bound == float("inf") else _number(bound)
            yield f"{name}_bucket", {**labels, "le": text}, cumulative
        yield f"{name}_sum", labels, histogram.total * scale
        yield f"{name}_count", labels, cumulative


def _model_labels(model: ModelStatistics) -> Labels:
    tags = {f"_{name}": value for name, value in model.tags.items()}
    return {"model": model.name, "version": str(model.version), **tags}


def _total_us(model: ModelStatistics, stage: str) -> int:
    duration = model.succeeded if stage == "request" else model.stages[stage]
    return duration.total_ns // 1000


class Machine:
    """CPU, memory and the event loop's lateness, read at intervals. Owned by the loop."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
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

    def write(self, page: Page) -> None:
        """The last readings."""
        used = self._memory.total - self._memory.available
        for name, help_text, value in (
            ("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", self._cpu_utilization),
            ("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", self._memory.total),
            ("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", used),
            (
                "trivet_event_loop_lateness_seconds",
                "How late the event loop was at worst in the last interval",
                self._lateness_s,
            ),
        ):
            page.family(name, "gauge", help_text, [(name, {}, value)])


class MetricsServer:
    """Answers GET /metrics on a port of its own."""

    def __init__(self, core: Core, settings: Settings) -> None:
        self._core = core
        self._address = (settings.metrics_address, settings.metrics_port)
        self._switches = parse_metrics_config(settings.metrics_config)
        self._machine = Machine(settings.metrics_interval_ms / 1000)
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listens; returns the port. Raises OSError when the address is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._page, allow_head=False)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        self._machine.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        """Stops listening."""
        await self._machine.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        page = Page()
        write_models(page, list(self._core.all_statistics()), self._switches)
        self._machine.write(page)
        return web.Response(
            body=page.text().encode(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

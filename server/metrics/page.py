"""The Prometheus page: Triton's nv_* names to the letter, and histograms of every stage.

Nothing here is on the request path: a scrape reads the models' counters.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder, gzip_accepted

from trivet.backends.device.nvml import Gpus
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.page import guard
from trivet.server.auth.scopes import Scope
from trivet.server.auth.tls import Tls
from trivet.server.cache.entry import Cache
from trivet.server.cache.metrics import write_cache, write_cache_summaries, write_cached_models
from trivet.server.core import Counters, HasSleepers, Releasing
from trivet.server.cost.ledger import Ledger
from trivet.server.metrics.config import MetricsConfig
from trivet.server.metrics.cost import write_costs
from trivet.server.metrics.custom import CustomMetrics
from trivet.server.metrics.generating import write_generators
from trivet.server.metrics.machine import Machine, write_process
from trivet.server.metrics.releases import write_arms, write_rollouts, write_shadows
from trivet.server.metrics.sequences import write_sequences
from trivet.server.metrics.sleeping import write_engine_sleep, write_sleepers
from trivet.server.metrics.supervision import write_supervision
from trivet.server.metrics.text import (
    Format,
    Known,
    Labels,
    Page,
    Unit,
    buckets,
    labels_of,
    observed,
    summarised,
)
from trivet.server.scheduling.statistics import (
    DURATION_BOUNDS_S,
    FIRST_RESPONSE_BOUNDS_MS,
    STAGES,
    FailureReason,
    ModelStatistics,
)
from trivet.server.settings import Settings

_STAGE_UNIT = Unit(1e-9, DURATION_BOUNDS_S)
"""Stages are counted in nanoseconds and told in seconds."""
_FIRST_RESPONSE_UNIT = Unit(1e-6, FIRST_RESPONSE_BOUNDS_MS)


def write_models(page: Page, models: Sequence[ModelStatistics], config: MetricsConfig) -> None:
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
    if config.counter_latencies:
        asked = [(labels, model) for labels, model in labelled if model.is_asked]
        for stage in STAGES:
            counter(
                f"nv_inference_{stage}_duration_us",
                f"Cumulative inference {stage.replace('_', ' ')} duration in microseconds",
                ((labels, _total_us(model, stage)) for labels, model in asked),
            )
    _write_copies(page, labelled)
    write_cached_models(page, labelled)
    write_sequences(page, labelled)
    _write_gauges(page, labelled)
    if config.histogram_latencies:
        _write_histograms(page, labelled)
    if config.summary_latencies:
        _write_summaries(page, labelled, config.quantiles)
        write_cache_summaries(page, labelled, config.quantiles)


def _write_copies(page: Page, labelled: list[tuple[Labels, ModelStatistics]]) -> None:
    """Of models that have computed: that they copied nothing is worth a line then."""
    asked = [(labels, model) for labels, model in labelled if model.execution_count]
    copied, waits = "trivet_tensor_copied_bytes_total", "trivet_host_synchronisations_total"
    page.family(
        copied,
        "counter",
        "Tensor bytes copied in host memory or between host and device, by kind",
        (
            (copied, {**labels, "kind": kind.value}, size_bytes)
            for labels, model in asked
            for kind, size_bytes in model.copied_bytes.items()
        ),
    )
    page.family(
        waits,
        "counter",
        "Waits of a model's threads for a device",
        ((waits, labels, model.host_synchronisations) for labels, model in asked),
    )


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
    memory = "trivet_model_gpu_memory_bytes"
    page.family(
        memory,
        "gauge",
        "What loading the model took of a GPU's memory, in bytes",
        (
            (memory, {**labels, "gpu_uuid": info.uuid}, size_bytes)
            for labels, model in labelled
            for info, size_bytes in model.gpu_memory.items()
        ),
    )


def _write_histograms(page: Page, labelled: list[tuple[Labels, ModelStatistics]]) -> None:
    first = "nv_inference_first_response_histogram_ms"
    page.family(
        first,
        "histogram",
        "Duration from request to first response in milliseconds",
        buckets(
            first,
            observed((labels, m.first_responses) for labels, m in labelled),
            _FIRST_RESPONSE_UNIT,
        ),
    )
    for stage in STAGES:
        name = f"trivet_inference_{stage}_duration_seconds"
        page.family(
            name,
            "histogram",
            f"Duration of the stage {stage} per request in seconds",
            buckets(
                name, observed((labels, m.histograms[stage]) for labels, m in labelled), _STAGE_UNIT
            ),
        )
    size = "trivet_inference_batch_size"
    page.family(
        size,
        "histogram",
        "Batch items per model execution",
        buckets(size, observed((labels, m.batch_sizes) for labels, m in labelled)),
    )


def _write_summaries(
    page: Page, labelled: list[tuple[Labels, ModelStatistics]], quantiles: Sequence[float]
) -> None:
    for stage in STAGES:
        name = f"nv_inference_{stage}_summary_us"
        page.family(
            name,
            "summary",
            f"Summary of inference {stage.replace('_', ' ')} duration in microseconds",
            summarised(
                name,
                [(labels, m.summaries[stage]) for labels, m in labelled if m.summaries is not None],
                quantiles,
            ),
        )


def _model_labels(model: ModelStatistics) -> Labels:
    tags = {f"_{name}": value for name, value in model.tags.items()}
    return {**labels_of(model), **tags}


def _total_us(model: ModelStatistics, stage: str) -> int:
    return int(model.histograms[stage].total) // 1000


class Counted(Counters, Releasing, HasSleepers, Protocol):
    """What the page tells of."""


class MetricsServer:
    """Answers GET /metrics on a port of its own."""

    def __init__(
        self,
        core: Counted,
        settings: Settings,
        cache: Cache | None = None,
        *,
        custom: CustomMetrics | None = None,
        gpus: Gpus | None = None,
        keyring: Keyring | None = None,
        tls: Tls | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """Without a keyring everybody may read; without TLS it speaks plain text."""
        self._core = core
        self._releases = core.releases
        self._cache = cache
        self._custom = custom
        self._ledger = ledger
        self._keyring = keyring
        self._tls = tls
        self._address = (settings.metrics_address, settings.metrics_port)
        self._config = MetricsConfig.parse(settings.metrics_config)
        self._machine = Machine(
            settings.metrics_interval_ms / 1000,
            gpus if settings.allow_gpu_metrics else None,
            shows_cpu=settings.allow_cpu_metrics,
        )
        self._written: dict[Format, Known] = {}
        """What labels look like on the last page of each format."""
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listens; returns the port. Raises OSError when the address is taken."""
        guards = [] if self._keyring is None else [guard(self._keyring, Scope.METRICS)]
        app = web.Application(middlewares=guards)
        app.router.add_get("/metrics", self._page, allow_head=False)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        context = None if self._tls is None else self._tls.context
        await web.TCPSite(self._runner, *self._address, ssl_context=context).start()
        self._machine.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        """Stops listening."""
        await self._machine.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        form = _format(request)
        page = Page(form, self._written.get(form))
        write_models(page, list(self._core.all_statistics()), self._config)
        write_supervision(page, self._core.loaded())
        write_sleepers(page, self._core.sleeping.residents())
        write_arms(page, self._releases.arms())
        write_shadows(page, self._releases.shadows())
        write_rollouts(page, self._releases.rollouts())
        measured = self._core.measured()
        write_generators(page, measured)
        write_engine_sleep(page, measured)
        write_cache(page, self._cache)
        write_costs(page, self._ledger)
        self._machine.write(page)
        write_process(page)
        if self._custom is not None:
            self._custom.write(page)
        self._written[form] = page.written
        response = web.Response(
            body=page.text().encode(),
            headers={"Content-Type": form.value, "Vary": "Accept, Accept-Encoding"},
        )
        if gzip_accepted(",".join(request.headers.getall("Accept-Encoding", ()))):
            response.enable_compression(web.ContentCoding.gzip)
        return response


def _format(request: web.Request) -> Format:
    accepted = ",".join(request.headers.getall("Accept", ()))
    _, content_type = choose_encoder(accepted)
    is_open = content_type.startswith("application/openmetrics-text")
    return Format.OPENMETRICS if is_open else Format.TEXT

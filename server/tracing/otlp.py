"""Traces as OpenTelemetry spans, sent over OTLP/HTTP by the SDK's own thread."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from trivet.backends.api import CopyKind, InvalidConfig
from trivet.server.tracing.config import OpenTelemetryConfig
from trivet.server.tracing.context import new_span_id
from trivet.server.tracing.record import AttributeValue, Span, Stages, Stamp, Trace

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as missing:
    raise InvalidConfig(
        "--trace-config mode=opentelemetry needs the OpenTelemetry SDK: pip install "
        f"'trivet[opentelemetry]' ({missing.name} is not installed)"
    ) from None

log = logging.getLogger(__name__)
COPIED = "trivet.copied_bytes."
SYNCHRONISATIONS = "trivet.host_synchronisations"
_COMPUTE = ("COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END")
_SCOPE = InstrumentationScope("trivet")
_SEND_TIMEOUT_S = 10.0


class OpenTelemetryTarget:
    """Makes spans on the event loop, a few microseconds each; the SDK's thread sends them.

    What it cannot send, or what comes faster than it can send, is lost, and no request waits.
    """

    def __init__(self, config: OpenTelemetryConfig) -> None:
        self._resource = Resource.create(dict(config.resource))
        # Its own words on a collector that is down are tracebacks, several for each batch.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = _ReportingExporter(config)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=config.max_queue_size,
            schedule_delay_millis=config.schedule_delay_ms,
            max_export_batch_size=config.max_export_batch_size,
        )

    def take(self, trace: Trace) -> None:
        """Queues the spans of a trace."""
        # Collectors want wall-clock times; one difference for all keeps a trace's in order.
        offset_ns = time.time_ns() - time.monotonic_ns()
        for span in trace.spans:
            for each in _Drawing(trace.trace_id, offset_ns, self._resource).spans(span):
                self._processor.on_end(each)

    def close(self, timeout_s: float) -> None:
        """Sends what is queued, if the collector takes it in that time."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(timeout_s)
        if closing.is_alive():
            self._exporter.shutdown()


class _ReportingExporter(SpanExporter):
    """Says once that the collector cannot be reached, and once that it can be again."""

    def __init__(self, config: OpenTelemetryConfig) -> None:
        self._inner = OTLPSpanExporter(endpoint=config.url, timeout=_SEND_TIMEOUT_S)
        self._url = config.shown_url
        self._num_lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """On the SDK's thread."""
        try:
            result = self._inner.export(spans)
        except OSError:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._num_lost:
                log.warning(
                    "spans are lost: the collector at %s (--trace-config opentelemetry,url) does "
                    "not take them; this is not repeated until it does",
                    self._url,
                )
            self._num_lost += len(spans)
        elif self._num_lost:
            log.info("the collector takes spans again; %d were lost", self._num_lost)
            self._num_lost = 0
        return result

    def shutdown(self) -> None:
        """Ends an attempt to send, too."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the library's own lack

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        return True


class _Drawing:
    """One span of ours as the SDK has them: itself, and the stages within it."""

    def __init__(self, trace_id: int, offset_ns: int, resource: Resource) -> None:
        self._trace_id = trace_id
        self._offset_ns = offset_ns
        self._resource = resource

    def spans(self, span: Span) -> Iterator[ReadableSpan]:
        """Those without stages are one."""
        stages = span.stages
        yield self._readable(
            span.name,
            (span.id, span.parent_id),
            (span.started_ns, span.ended_ns),
            attributes=_attributes(span),
            stamps=[stamp for stamp in span.stamps if stamp.name not in _COMPUTE],
            kind=SpanKind.SERVER if span.is_whole else SpanKind.INTERNAL,
            error=span.error,
        )
        if stages is not None:
            yield from self._stages(span, stages)

    def _stages(self, span: Span, stages: Stages) -> Iterator[ReadableSpan]:
        compute_id = new_span_id()
        queue = (stages.queued_ns, stages.started_ns)
        yield self._readable("queue", (new_span_id(), span.id), queue)
        yield self._readable(
            "compute",
            (compute_id, span.id),
            (stages.started_ns, stages.ended_ns),
            stamps=[stamp for stamp in span.stamps if stamp.name in _COMPUTE],
        )
        for name, times in (
            ("compute_input", (stages.started_ns, stages.gathered_ns)),
            ("compute_infer", (stages.gathered_ns, stages.computed_ns)),
            ("compute_output", (stages.computed_ns, stages.ended_ns)),
        ):
            yield self._readable(name, (new_span_id(), compute_id), times)

    def _readable(
        self,
        name: str,
        ids: tuple[int, int],
        times: tuple[int, int],
        *,
        attributes: dict[str, AttributeValue] | None = None,
        stamps: Sequence[Stamp] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        error: str = "",
    ) -> ReadableSpan:
        own_id, parent_id = ids
        offset_ns = self._offset_ns
        return ReadableSpan(
            name,
            self._context(own_id),
            self._context(parent_id) if parent_id else None,
            self._resource,
            attributes or {},
            [Event(stamp.name, timestamp=stamp.ns + offset_ns) for stamp in stamps],
            kind=kind,
            status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
            start_time=times[0] + offset_ns,
            end_time=times[1] + offset_ns,
            instrumentation_scope=_SCOPE,
        )

    def _context(self, span_id: int) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(self._trace_id, span_id, is_remote=False, trace_flags=flags)


def _attributes(span: Span) -> dict[str, AttributeValue]:
    """Triton's names where it has the same."""
    attributes = dict(span.attributes)
    if span.request_id:
        attributes["triton.request_id"] = span.request_id
    if span.model_name:
        attributes["triton.model_name"] = span.model_name
    if span.model_version:
        attributes["triton.model_version"] = span.model_version
    if span.copied_bytes is not None:
        for kind in CopyKind:
            attributes[COPIED + kind.value] = span.copied_bytes.get(kind, 0)
        attributes[SYNCHRONISATIONS] = span.host_synchronisations
    return attributes

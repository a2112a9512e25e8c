"""A traced request on its way: what its models tell, put together. Owned by the event loop."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trivet.backends.api import (
    CopyKind,
    Execution,
    InferRequest,
    InferResponse,
    ServingError,
    Sink,
    Tensor,
)
from trivet.server.tracing.context import TraceContext, new_span_id
from trivet.server.tracing.record import SeenTensor, Span, Stages, Stamp, Trace
from trivet.server.tracing.setting import TraceSetting

BATCH_SIZE = "trivet.batch_size"

QUEUE_INPUT, BACKEND_OUTPUT = "TENSOR_QUEUE_INPUT", "TENSOR_BACKEND_OUTPUT"
"""Where tensors were seen, in Triton's words."""


@dataclass(slots=True, eq=False)
class LiveTrace:
    """The spans of one request; handed on when the last of them has ended.

    Whoever opens a span, or holds the trace for another reason, closes it exactly once.
    """

    context: TraceContext
    setting: TraceSetting
    deliver: Callable[[Trace], None]
    spans: list[Span]
    num_open: int = 0

    def open(self, span: Span) -> None:
        """A span begins."""
        self.spans.append(span)
        self.num_open += 1

    def close(self) -> None:
        """A span has ended."""
        self.num_open -= 1
        if self.num_open == 0:
            # A model may ask others when its own request has ended: those come in a further piece.
            spans, self.spans = self.spans, []
            self.deliver(Trace(self.context.trace_id, spans, self.setting.log_frequency))


class Part:
    """A `Trace`: one span, as those see it who handle its request."""

    __slots__ = ("live", "span")

    def __init__(self, live: LiveTrace, span: Span) -> None:
        self.live = live
        self.span = span
        live.open(span)

    @property
    def traceparent(self) -> str:
        """The W3C header that makes what is done elsewhere a part of this one."""
        return TraceContext(self.live.context.trace_id, self.span.id).header()

    def begin(self, request: InferRequest, version: int, inputs: Mapping[str, Tensor]) -> "Part":
        """A model begins with a request on this one's behalf; see `Trace`."""
        now_ns = time.monotonic_ns()
        name = request.model_name
        span = Span(name, new_span_id(), self.span.id, now_ns, 0, name, version, request.id)
        span.copied_bytes = {}
        span.stamps.append(Stamp("REQUEST_START", now_ns))
        if self.live.setting.has_tensors:
            span.tensors += _seen(QUEUE_INPUT, inputs.values())
        return Part(self.live, span)

    def ending(self, sink: Sink) -> Sink:
        """A sink in front of another, which ends this part; see `Trace`."""
        return PartSink(self, sink)

    def executed(self, execution: Execution) -> None:
        """The request was computed."""
        span = self.span
        span.stages = stages = Stages(
            execution.queued_ns,
            execution.started_ns,
            execution.gathered_ns,
            execution.computed_ns,
            execution.ended_ns,
        )
        span.stamps += (
            Stamp("QUEUE_START", stages.queued_ns),
            Stamp("COMPUTE_START", stages.started_ns),
            Stamp("COMPUTE_INPUT_END", stages.gathered_ns),
            Stamp("COMPUTE_OUTPUT_START", stages.computed_ns),
            Stamp("COMPUTE_END", stages.ended_ns),
        )
        batch = execution.batch
        if batch is None:
            span.copied_bytes = None
            return
        span.attributes[BATCH_SIZE] = batch.size
        span.host_synchronisations += batch.synchronisations
        self.copied(CopyKind.GATHER, batch.gathered_bytes)
        for kind, size_bytes in batch.copies.items():
            self.copied(kind, size_bytes)

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """Tensor bytes were copied."""
        copied = self.span.copied_bytes
        if copied is not None:
            copied[kind] = copied.get(kind, 0) + size_bytes

    def end(self, error: str = "") -> None:
        """The span is over. Once."""
        self.span.error = error
        self.span.ended_ns = time.monotonic_ns()
        self.live.close()


class PartSink:
    """Ends a model's part with its request, before the one who asked for it goes on."""

    __slots__ = ("_is_ended", "_part", "_sink")

    def __init__(self, part: Part, sink: Sink) -> None:
        self._part = part
        self._sink = sink
        self._is_ended = False

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response."""
        if not self._is_ended and self._part.live.setting.has_tensors:
            self._part.span.tensors += _seen(BACKEND_OUTPUT, response.outputs)
        if final:
            self._end()
        self._sink.send(response, final=final)

    def finish(self) -> None:
        """The end without a further response."""
        self._end()
        self._sink.finish()

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._end(error.message)
        self._sink.fail(error)

    def _end(self, error: str = "") -> None:
        if self._is_ended:
            return
        self._is_ended = True
        self._part.span.stamps.append(Stamp("REQUEST_END", time.monotonic_ns()))
        self._part.end(error)


def _seen(activity: str, tensors: Iterable[Tensor]) -> list[SeenTensor]:
    """Copies: whoever owns the memory goes on to use it."""
    return [
        SeenTensor(activity, each.name, each.datatype.value, np.array(each.numpy()))
        for each in tensors
    ]

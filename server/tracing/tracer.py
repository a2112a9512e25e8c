"""Begins traces: of requests that reach the core, and of what language models generate."""

import time
from collections.abc import Callable, Mapping

from trivet.backends.api import InferRequest, InferResponse, ServingError, Sink
from trivet.server.tracing.arrival import Arrival, current_arrival
from trivet.server.tracing.context import TraceContext, new_span_id
from trivet.server.tracing.live import LiveTrace, Part
from trivet.server.tracing.record import Span, Stamp, Trace
from trivet.server.tracing.sampling import Sampler

REQUEST_SPAN = "InferRequest"
_RECEIVED = {
    "HTTP": ("HTTP_RECV_START", "HTTP_RECV_END"),
    "GRPC": ("GRPC_WAITREAD_START", "GRPC_WAITREAD_END"),
}


class Tracer:
    """What the core asks while anything is traced. Owned by the event loop."""

    def __init__(
        self,
        everything: Sampler,
        models: Mapping[str, Sampler],
        deliver: Callable[[Trace], None],
    ) -> None:
        self._everything = everything
        self._models = models
        self._deliver = deliver

    def begin(self, request: InferRequest, sink: Sink) -> "RequestSink | None":
        """Begins the trace of a client's request if it is to have one: the sink to use, and in it
        the request's part."""
        arrival = current_arrival.get()
        live = self.start(request.model_name, arrival)
        if live is None:
            return None
        now_ns = time.monotonic_ns()
        started_ns = now_ns if arrival is None else arrival.received_ns
        span = Span(REQUEST_SPAN, new_span_id(), live.context.span_id, started_ns)
        span.request_id, span.is_whole = request.id, True
        if arrival is not None:
            names = _RECEIVED[arrival.protocol]
            span.stamps += (Stamp(names[0], started_ns), Stamp(names[1], now_ns))
        part = Part(live, span)
        if arrival is not None and arrival.sends_later:
            arrival.part = part
            return RequestSink(part, None, sink)
        return RequestSink(part, arrival or Arrival("GRPC"), sink)

    def refused(self, model: str, request_id: str, error: ServingError) -> None:
        """A request ends before it has a model: its trace, if it is to have one, is that."""
        sink = self.begin(InferRequest(model, None, request_id, {}), _NOBODY)
        if sink is not None:
            sink.fail(error)

    def start(self, model: str, arrival: Arrival | None) -> LiveTrace | None:
        """A trace without spans, or None."""
        caller = None if arrival is None else arrival.context
        sampler = self._models.get(model, self._everything)
        if not sampler.takes(caller):
            return None
        context = caller or TraceContext.new()
        return LiveTrace(context, sampler.setting, self._deliver, [])


class _Nobody:
    """Takes no answer: whoever asked hears of the error elsewhere."""

    def send(self, response: InferResponse, *, final: bool) -> None:
        """There is none."""

    def finish(self) -> None:
        """It does not end so."""

    def fail(self, error: ServingError) -> None:
        """Told to the client by whoever asked for its model."""


_NOBODY = _Nobody()


class RequestSink:
    """Notes what became of a client's request; sends its answer where nobody does later."""

    __slots__ = ("_arrival", "_is_ended", "_sink", "part")

    def __init__(self, part: Part, arrival: Arrival | None, sink: Sink) -> None:
        """With `arrival` the span ends here."""
        self.part = part
        self._arrival = arrival
        self._sink = sink
        self._is_ended = False

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response."""
        if not final:
            self._sink.send(response, final=False)
            return
        self._complete()
        self._sink.send(response, final=True)
        self._sent()

    def finish(self) -> None:
        """The end without a further response."""
        self._complete()
        self._sink.finish()
        self._sent()

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._complete(error.message)
        self._sink.fail(error)
        self._sent()

    def _complete(self, error: str = "") -> None:
        if self._is_ended:
            return
        span = self.part.span
        span.error = error
        span.stamps.append(Stamp("INFER_RESPONSE_COMPLETE", time.monotonic_ns()))
        if self._arrival is not None:
            self._arrival.part = self.part
            self._arrival.sending()

    def _sent(self) -> None:
        self._is_ended = True
        if self._arrival is not None:
            self._arrival.sent()

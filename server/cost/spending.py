"""What one request takes while it is on its way, and the end at which that is charged."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Protocol

from trivet.backends.api import (
    Chunk,
    CopyKind,
    Execution,
    GenerateSink,
    InferRequest,
    InferResponse,
    ServingError,
    Sink,
    Tensor,
    Trace,
)
from trivet.server.cost.ledger import Account, Ledger
from trivet.server.cost.shared_clock import SharedClock
from trivet.server.models.routing import COST_HEADER


class Spending:
    """One request's. Charged once, at its end, well or not."""

    __slots__ = ("_account", "_ledger", "_told", "compute_s", "cost")

    def __init__(
        self,
        account: Account,
        ledger: Ledger,
        told: MutableMapping[str, str],
    ) -> None:
        """`told`: what the answer's head says."""
        self._account = account
        self._ledger = ledger
        self._told = told
        self.compute_s = 0.0
        self.cost = 0.0

    def computed(self, compute_s: float, per_second: float) -> None:
        """A model has computed so long for it."""
        self.compute_s += compute_s
        self.cost += compute_s * per_second

    def end(self) -> None:
        """It has ended: before its last response is sent."""
        # Several outputs of one prompt are several requests to the model, and one of the client's.
        before = float(self._told.get(COST_HEADER, 0.0))
        self._told[COST_HEADER] = f"{before + self.cost:.9f}"
        self._ledger.add(self._account, self.compute_s, self.cost)


class EngineShare:
    """A request's part of an engine, from now on. Ends once."""

    __slots__ = ("_begun_s", "_clock", "_is_over", "_per_second", "_spending")

    def __init__(self, clock: SharedClock, spending: Spending, per_second: float) -> None:
        self._clock = clock
        self._spending = spending
        self._per_second = per_second
        self._begun_s = clock.begin()
        self._is_over = False

    def end(self) -> None:
        """What it had is charged."""
        if not self._is_over:
            self._is_over = True
            self._spending.computed(self._clock.end(self._begun_s), self._per_second)


class EndingSink:
    """A Sink in front of another, which says when the end has come."""

    __slots__ = ("_is_over", "_on_end", "_sink")

    def __init__(self, sink: Sink, on_end: Callable[[], None]) -> None:
        self._sink = sink
        self._on_end = on_end
        self._is_over = False

    def send(self, response: InferResponse, *, final: bool) -> None:
        """See Sink."""
        if final:
            self._end()
        self._sink.send(response, final=final)

    def finish(self) -> None:
        """See Sink."""
        self._end()
        self._sink.finish()

    def fail(self, error: ServingError) -> None:
        """See Sink."""
        self._end()
        self._sink.fail(error)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end()


class EndingGenerateSink:
    """The same of a GenerateSink."""

    __slots__ = ("_is_over", "_on_end", "_sink")

    def __init__(self, sink: GenerateSink, on_end: Callable[[], None]) -> None:
        self._sink = sink
        self._on_end = on_end
        self._is_over = False

    def chunk(self, chunk: Chunk) -> None:
        """See GenerateSink."""
        if chunk.finish is not None:
            self._end()
        self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """See GenerateSink."""
        self._end()
        self._sink.fail(error)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_end()


class Pricing(Protocol):
    """What models cost, and which of them are engines that share their time out."""

    def per_second(self, name: str, version: int | str | None) -> float:
        """Of a version's computing."""

    def clock_of(self, name: str, version: int | str | None) -> SharedClock | None:
        """Of its engine; None for one that computes batches."""


class SpendingTrace:
    """A `Trace` that adds up what each model has computed for a request, steps of ensembles and
    what models ask included. In front of another, where the request is traced besides."""

    __slots__ = ("_inner", "_num_rows", "_per_second", "_pricing", "_share", "_spending")

    def __init__(self, spending: Spending, pricing: Pricing, inner: Trace | None = None) -> None:
        self._spending = spending
        self._pricing = pricing
        self._inner = inner
        self._per_second = 0.0
        self._num_rows = 1
        self._share: EngineShare | None = None

    @property
    def traceparent(self) -> str:
        """See Trace; empty where it is not traced."""
        return "" if self._inner is None else self._inner.traceparent

    def begin(
        self, request: InferRequest, version: int, inputs: Mapping[str, Tensor]
    ) -> "SpendingTrace":
        """See Trace."""
        inner = None if self._inner is None else self._inner.begin(request, version, inputs)
        part = SpendingTrace(self._spending, self._pricing, inner)
        part._start(request.model_name, version, inputs)
        return part

    def _start(self, name: str, version: int, inputs: Mapping[str, Tensor]) -> None:
        first = next(iter(inputs.values()), None)
        if first is not None and first.shape:
            self._num_rows = first.shape[0]
        self._per_second = self._pricing.per_second(name, version)
        clock = self._pricing.clock_of(name, version)
        if clock is not None:
            self._share = EngineShare(clock, self._spending, self._per_second)

    def beside(self, inner: Trace) -> "SpendingTrace":
        """The same for a request that is traced, too."""
        return SpendingTrace(self._spending, self._pricing, inner)

    def ending(self, sink: Sink) -> Sink:
        """See Trace."""
        if self._inner is not None:
            sink = self._inner.ending(sink)
        return sink if self._share is None else EndingSink(sink, self._share.end)

    def executed(self, execution: Execution) -> None:
        """See Trace. Of a batch it pays for its part of the items."""
        batch = execution.batch
        share = 1.0
        if batch is not None and batch.size > self._num_rows:
            share = self._num_rows / batch.size
        elapsed_ns = execution.ended_ns - execution.started_ns
        self._spending.computed(max(0, elapsed_ns) / 1e9 * share, self._per_second)
        if self._inner is not None:
            self._inner.executed(execution)

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """See Trace."""
        if self._inner is not None:
            self._inner.copied(kind, size_bytes)

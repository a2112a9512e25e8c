"""What happens to requests of one version while its traffic is shared out: counts for ever, and
values for whoever looks next. Owned by the event loop."""

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping

from trivet.backends.api import (
    Cancelled,
    Chunk,
    GenerateRequest,
    GenerateSink,
    Generator,
    Histogram,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ServingError,
    Sink,
)
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.server.rollouts.comparing import Outcomes
from trivet.server.rollouts.feedback import Answered
from trivet.server.rollouts.guards import ERROR, FIRST_TOKEN, LATENCY, LENGTH, OUTCOME, REFUSAL
from trivet.server.rollouts.refusals import is_refusal
from trivet.server.scheduling.statistics import DURATION_BOUNDS_S

MOST_VALUES = 100_000
"""Of a series between two looks; the first ones count."""
_TEXT_CHARACTERS = 200
"""Of an output, to see whether it refuses."""


class Arm:
    """One version's requests."""

    __slots__ = (
        "_refused_by_all", "_values", "answered", "is_looked_at", "key", "latency", "num_errors",
        "num_requests", "outcomes", "version",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        version: int,
        answered: "Answered[Arm]",
        refused_by_all: Callable[[InferRequest], bool] = lambda _: False,
    ) -> None:
        """`answered` remembers which version a request got; `refused_by_all`: whether each of the
        split's versions would refuse a request."""
        self._refused_by_all = refused_by_all
        self.key = key
        self.version = version
        self.answered = answered
        self.num_requests = 0
        """That have ended, but for those that their clients gave up."""
        self.num_errors = 0
        self.latency = Histogram(DURATION_BOUNDS_S)
        self.outcomes: dict[str, Outcomes] = {}
        self.is_looked_at = False
        """Whether somebody takes the values; else none are kept."""
        self._values: dict[str, list[float]] = {}

    def take(self) -> Mapping[str, list[float]]:
        """The values by series since this was asked last."""
        values, self._values = self._values, {}
        return values

    def note(self, series: str, value: float) -> None:
        """A value of a request."""
        if not self.is_looked_at:
            return
        values = self._values.get(series)
        if values is None:
            self._values[series] = [value]
        elif len(values) < MOST_VALUES:
            values.append(value)

    def ended(self, elapsed_s: float) -> None:
        """A request was answered."""
        self.num_requests += 1
        counts = self.latency.counts
        counts[bisect_left(DURATION_BOUNDS_S, elapsed_s)] += 1
        self.latency.total += elapsed_s
        self.note(ERROR, 0.0)
        self.note(LATENCY, elapsed_s)

    def failed(self, error: ServingError) -> None:
        """A request ended without an answer; not the version's matter where its client left."""
        if not isinstance(error, Cancelled):
            self.num_requests += 1
            self.num_errors += 1
            self.note(ERROR, 1.0)

    def refused(self, request: InferRequest, error: InvalidRequest) -> None:
        """The version does not take a request. What none of them takes is its client's fault, who
        may stick to this one."""
        if not self._refused_by_all(request):
            self.failed(error)

    def reported(self, name: str, value: float) -> None:
        """How a request turned out, as its client says."""
        self.outcomes_of(name).add(value)
        self.note(OUTCOME + name, value)

    def outcomes_of(self, name: str) -> Outcomes:
        """What was reported under a name."""
        return self.outcomes.setdefault(name, Outcomes())

    def observed(self, request: InferRequest, sink: Sink) -> Sink:
        """See Watch."""
        if request.id:
            self.answered.remember(request.id, self)
        return _ArmSink(self, request, sink)

    def generator(self, inner: Generator) -> Generator:
        """See Watch."""
        return _ArmGenerator(inner, self)


class _ArmSink:
    """Sees how one request ends."""

    __slots__ = ("_arm", "_is_ended", "_request", "_sink", "_started_s")

    def __init__(self, arm: Arm, request: InferRequest, sink: Sink) -> None:
        self._arm = arm
        self._request = request
        self._sink = sink
        self._is_ended = False
        self._started_s = time.monotonic()

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response."""
        if final:
            self._end()
        self._sink.send(response, final=final)

    def finish(self) -> None:
        """The end without a further response."""
        self._end()
        self._sink.finish()

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        if not self._is_ended:
            self._is_ended = True
            if isinstance(error, InvalidRequest):
                self._arm.refused(self._request, error)
            else:
                self._arm.failed(error)
        self._sink.fail(error)

    def _end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._arm.ended(time.monotonic() - self._started_s)


class _ArmGenerator(DelegatingGenerator):
    """A Generator whose outputs are an arm's."""

    def __init__(self, inner: Generator, arm: Arm) -> None:
        super().__init__(inner)
        self._arm = arm

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        if request.id:
            self._arm.answered.remember(request.id, self._arm)
        self._inner.generate(request, _OutputSink(self._arm, sink))


class _OutputSink:
    """Sees how one output ends."""

    __slots__ = ("_arm", "_is_ended", "_num_tokens", "_sink", "_started_s", "_text")

    def __init__(self, arm: Arm, sink: GenerateSink) -> None:
        self._arm = arm
        self._sink = sink
        self._is_ended = False
        self._num_tokens = 0
        self._text = ""
        self._started_s = time.monotonic()

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        if not self._num_tokens and chunk.token_ids:
            self._arm.note(FIRST_TOKEN, time.monotonic() - self._started_s)
        self._num_tokens += len(chunk.token_ids)
        if len(self._text) < _TEXT_CHARACTERS:
            self._text += chunk.text
        if chunk.finish is not None and not self._is_ended:
            self._is_ended = True
            self._arm.ended(time.monotonic() - self._started_s)
            self._arm.note(LENGTH, float(self._num_tokens))
            self._arm.note(REFUSAL, float(is_refusal(self._text[:_TEXT_CHARACTERS])))
        self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        if not self._is_ended:
            self._is_ended = True
            if not isinstance(error, InvalidRequest):  # whose tokens or options are its client's
                self._arm.failed(error)
        self._sink.fail(error)

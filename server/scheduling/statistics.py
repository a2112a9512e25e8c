"""What has happened to a model version: counters, times and histograms. Owned by the event loop.

The hot path adds plain integers; the wire message and the metrics page read them when asked.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from trivet.backends.api import Batch, CopyKind, Histogram
from trivet.backends.api.native.records import tally
from trivet.backends.api.value import value
from trivet.backends.device.nvml import GpuInfo
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.metrics.summary import Summary

# Upper bounds of the histograms. Durations in seconds from 100 us to 10 s, sizes in batch items.
DURATION_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
)  # fmt: skip
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FIRST_RESPONSE_BOUNDS_MS = (100.0, 500.0, 2000.0, 5000.0)
_FIRST_RESPONSE_BOUNDS_NS = tuple(round(bound * 1e6) for bound in FIRST_RESPONSE_BOUNDS_MS)
STAGES = ("request", "queue", "compute_input", "compute_infer", "compute_output")


class FailureReason(Enum):
    """Why a request failed, as the metric's label says it."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class ResponseOutcome(Enum):
    """How one response of a decoupled model went."""

    SUCCESS = "success"
    FAIL = "fail"
    EMPTY = "empty_response"
    CANCEL = "cancel"


class SequenceEnd(Enum):
    """How a sequence ended, as the metric's label says it."""

    COMPLETED = "completed"
    IDLE = "idle"
    CUT = "cut"
    """A request of it was cancelled or came too late."""
    LOST = "lost"
    """With the process that knew it."""
    UNLOADED = "unloaded"


@dataclass(slots=True)
class SequenceCounts:
    """The sequences of one model version."""

    num_open: int = 0
    num_waiting: int = 0
    """Of the open ones, those that wait for a slot."""
    ended: dict[SequenceEnd, int] = field(default_factory=lambda: dict.fromkeys(SequenceEnd, 0))


@value
class BatchTiming:
    """Where the time of one execution went, in nanoseconds."""

    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int


@dataclass(slots=True)
class Duration:
    """A count and the nanoseconds it took together."""

    count: int = 0
    total_ns: int = 0

    def add(self, elapsed_ns: int) -> None:
        """One more."""
        self.count += 1
        self.total_ns += elapsed_ns

    def to_message(self) -> pb.StatisticDuration:
        """As the protocol has it."""
        return pb.StatisticDuration(count=self.count, ns=self.total_ns)


# Whole numbers: times are, and comparing both kinds of number takes longer.
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in DURATION_BOUNDS_S)


@dataclass(slots=True)
class _BatchSize:
    count: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


@dataclass(slots=True)
class _ResponseStatistics:
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    outcomes: dict[ResponseOutcome, Duration] = field(
        default_factory=lambda: {outcome: Duration() for outcome in ResponseOutcome}
    )


class ModelStatistics:
    """The counters of one model version, over reloads.

    Identities that hold at any time: `queue.count == success.count`, each compute count equals the
    success count less the cache hits, and the batch sizes' counts sum to `execution_count`.
    """

    def __init__(
        self, name: str, version: int, *, namespace: str = "", has_summaries: bool = False
    ) -> None:
        self.name = name
        self.namespace = namespace
        """The model's repository, where these are namespaces."""
        self.version = version
        self.tags: dict[str, str] = {}
        """The config's metric_tags."""
        self.load_duration_s = 0.0
        self.gpu_memory: Mapping[GpuInfo, int] = {}
        """What loading it took of GPUs' memory, in bytes."""
        self.cpu_memory_bytes = 0
        """What its own processes had when it was loaded; 0 for a model without any."""
        self.pending = 0
        """Requests that wait to be executed. Their executor counts them."""
        self.inference_count = 0
        self.execution_count = 0
        self.last_inference_ms = 0
        self.failed = Duration()
        self.is_cached = False
        """Whether the response cache stands before it."""
        self.cache_hits = Duration()
        self.cache_misses = Duration()
        self.failures = dict.fromkeys(FailureReason, 0)
        self.batches: dict[int, _BatchSize] = {}
        self.copied_bytes = dict.fromkeys(CopyKind, 0)
        self.host_synchronisations = 0
        """How often a thread of the model waited for a device."""
        self.sequences: SequenceCounts | None = None
        """For a model with sequences."""
        self.responses: dict[int, _ResponseStatistics] = {}
        self.histograms = {stage: Histogram(_BOUNDS_NS) for stage in STAGES}
        self._stages = tuple(self.histograms.values())
        self.summaries = {stage: Summary() for stage in STAGES} if has_summaries else None
        self.cache_summaries = (Summary(), Summary()) if has_summaries else None
        """Of hits and of misses."""
        self.batch_sizes = Histogram(BATCH_BOUNDS)
        self.first_responses = Histogram(_FIRST_RESPONSE_BOUNDS_NS)

    # -- the hot path --------------------------------------------------------------------------

    def takes(self, cpu_bytes: int, gpu: Mapping[GpuInfo, int]) -> None:
        """What the version has of memory from now on."""
        self.cpu_memory_bytes, self.gpu_memory = cpu_bytes, gpu

    def execution(self, batch_size: int, timing: BatchTiming) -> None:
        """A batch was computed. Once per batch; `success` follows for each request in it."""
        self.execution_count += 1
        sizes = self.batch_sizes
        sizes.counts[bisect_left(BATCH_BOUNDS, batch_size)] += 1
        sizes.total += batch_size
        size = self.batches.get(batch_size)
        if size is None:
            size = self.batches[batch_size] = _BatchSize()
        size.count += 1
        size.compute_input_ns += timing.compute_input_ns
        size.compute_infer_ns += timing.compute_infer_ns
        size.compute_output_ns += timing.compute_output_ns

    def copied(self, batch: Batch) -> None:
        """What an execution copied, and how often it waited for a device, if at all."""
        self.copied_bytes[CopyKind.GATHER] += batch.gathered_bytes
        for kind, size_bytes in batch.copies.items():
            self.copied_bytes[kind] += size_bytes
        self.host_synchronisations += batch.synchronisations

    def answered(
        self, size: int, queues_ns: list[int], totals_ns: list[int], timing: BatchTiming
    ) -> None:
        """Requests of one batch were answered, each by one response; `size`: of all of them. Of
        each, for how long it has waited, and how long it took from its arrival to its answer."""
        self._succeeded(size, queues_ns, totals_ns, timing)
        first = self.first_responses
        first.total += tally(first.counts, _FIRST_RESPONSE_BOUNDS_NS, totals_ns)

    def success(self, batch_size: int, queue_ns: int, timing: BatchTiming, total_ns: int) -> None:
        """A request was answered, by any number of responses; `total_ns` is from its arrival to its
        end."""
        self._succeeded(batch_size, [queue_ns], [total_ns], timing)

    def _succeeded(
        self, size: int, queues_ns: list[int], totals_ns: list[int], timing: BatchTiming
    ) -> None:
        # The protocol gives this one as wall-clock time.
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.inference_count += size
        count = len(totals_ns)
        request, queue, compute_input, compute_infer, compute_output = self._stages
        input_ns, infer_ns = timing.compute_input_ns, timing.compute_infer_ns
        output_ns = timing.compute_output_ns
        # `observe` written out: as calls it would cost three times that.
        compute_input.counts[bisect_left(_BOUNDS_NS, input_ns)] += count
        compute_input.total += count * input_ns
        compute_infer.counts[bisect_left(_BOUNDS_NS, infer_ns)] += count
        compute_infer.total += count * infer_ns
        compute_output.counts[bisect_left(_BOUNDS_NS, output_ns)] += count
        compute_output.total += count * output_ns
        request.total += tally(request.counts, _BOUNDS_NS, totals_ns)
        queue.total += tally(queue.counts, _BOUNDS_NS, queues_ns)
        if self.summaries is not None:
            for queue_ns, total_ns in zip(queues_ns, totals_ns, strict=True):
                self._summarise(queue_ns, timing, total_ns)

    def computed_alone(self, batch_size: int, total_ns: int) -> None:
        """`execution` and `success` of a request that never waited and was all computing: an
        ensemble's, which comes here for each request and has zeros for all else."""
        self.execution_count += 1
        self.batch_sizes.observe(batch_size)
        size = self.batches.get(batch_size)
        if size is None:
            size = self.batches[batch_size] = _BatchSize()
        self.inference_count += batch_size
        self.last_inference_ms = time.time_ns() // 1_000_000
        size.count += 1
        size.compute_infer_ns += total_ns
        request, queue, compute_input, compute_infer, compute_output = self._stages
        request.observe(total_ns)
        compute_infer.observe(total_ns)
        for histogram in (queue, compute_input, compute_output):
            histogram.counts[0] += 1
        if self.summaries is not None:
            self._summarise(0, BatchTiming(0, total_ns, 0), total_ns)

    def _summarise(self, queue_ns: int, timing: BatchTiming, total_ns: int) -> None:
        assert self.summaries is not None
        computed = timing.compute_input_ns, timing.compute_infer_ns, timing.compute_output_ns
        times = (total_ns, queue_ns, *computed)
        for summary, elapsed_ns in zip(self.summaries.values(), times, strict=True):
            summary.observe(elapsed_ns)

    def failure(self, reason: FailureReason, total_ns: int) -> None:
        """A request ended without an answer."""
        self.failed.add(total_ns)
        self.failures[reason] += 1

    def cache_hit(self, elapsed_ns: int) -> None:
        """A request was answered from the cache."""
        self.cache_hits.add(elapsed_ns)
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.histograms["request"].observe(elapsed_ns)
        if self.summaries is not None:
            self.summaries["request"].observe(elapsed_ns)
            self.summaries["queue"].observe(0)
        if self.cache_summaries is not None:
            self.cache_summaries[0].observe(elapsed_ns)

    def cache_missed(self, elapsed_ns: int) -> None:
        """A request was not found in the cache; `cache_miss_ended` follows."""
        self.cache_misses.add(elapsed_ns)

    def cache_miss_ended(self, elapsed_ns: int, stored_ns: int) -> None:
        """One that was not found, after `elapsed_ns`, has its end; storing its answer took so long,
        0 where it was not stored."""
        self.cache_misses.total_ns += stored_ns
        if self.cache_summaries is not None:
            self.cache_summaries[1].observe(elapsed_ns + stored_ns)

    def first_response(self, elapsed_ns: int) -> None:
        """A request's first response, so long after its arrival."""
        self.first_responses.observe(elapsed_ns)

    def response(
        self, index: int, compute_infer_ns: int, compute_output_ns: int, outcome: ResponseOutcome
    ) -> None:
        """Response number `index` of a request to a decoupled model."""
        statistics = self.responses.get(index)
        if statistics is None:
            statistics = self.responses[index] = _ResponseStatistics()
        statistics.compute_infer.add(compute_infer_ns)
        statistics.compute_output.add(compute_output_ns)
        statistics.outcomes[outcome].add(compute_infer_ns + compute_output_ns)

    # -- for those who ask ---------------------------------------------------------------------

    @property
    def is_asked(self) -> bool:
        """Whether a request has been answered."""
        return self.last_inference_ms > 0

    @property
    def succeeded(self) -> Duration:
        """The requests that were answered."""
        return self.duration("request")

    def duration(self, stage: str) -> Duration:
        """What the answered requests took in a stage: its histogram knows. One that the cache has
        answered has waited, for no time, and was not computed."""
        histogram = self.histograms[stage]
        num_skipped = self.cache_hits.count if stage == "queue" else 0
        return Duration(sum(histogram.counts) + num_skipped, int(histogram.total))

    def to_message(self) -> pb.ModelStatistics:
        """As the statistics extension gives them."""
        message = pb.ModelStatistics(
            name=self.name,
            version=str(self.version),
            last_inference=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=self.execution_count,
            inference_stats=pb.InferStatistics(
                success=self.succeeded.to_message(),
                fail=self.failed.to_message(),
                cache_hit=self.cache_hits.to_message(),
                cache_miss=self.cache_misses.to_message(),
                **{stage: self.duration(stage).to_message() for stage in STAGES[1:]},
            ),
        )
        if self.cpu_memory_bytes:
            message.memory_usage.add(type="CPU", id=0, byte_size=self.cpu_memory_bytes)
        for info, size_bytes in self.gpu_memory.items():
            message.memory_usage.add(type="GPU", id=info.number, byte_size=size_bytes)
        for batch_size, size in sorted(self.batches.items()):
            message.batch_stats.add(
                batch_size=batch_size,
                compute_input=pb.StatisticDuration(count=size.count, ns=size.compute_input_ns),
                compute_infer=pb.StatisticDuration(count=size.count, ns=size.compute_infer_ns),
                compute_output=pb.StatisticDuration(count=size.count, ns=size.compute_output_ns),
            )
        for index, response in self.responses.items():
            target = message.response_stats[str(index)]
            target.compute_infer.CopyFrom(response.compute_infer.to_message())
            target.compute_output.CopyFrom(response.compute_output.to_message())
            for outcome, duration in response.outcomes.items():
                getattr(target, outcome.value).CopyFrom(duration.to_message())
        return message

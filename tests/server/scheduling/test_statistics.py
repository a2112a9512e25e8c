"""Statistics: the identities that dashboards rely on hold after any sequence of events."""

from hypothesis import given
from hypothesis import strategies as st

from trivet.backends.api import Histogram
from trivet.server.scheduling.statistics import (
    BatchTiming,
    FailureReason,
    ModelStatistics,
    ResponseOutcome,
)

durations = st.integers(0, 10**10)
timings = st.builds(BatchTiming, durations, durations, durations)
batches = st.lists(st.tuples(st.lists(st.integers(1, 8), min_size=1, max_size=5), timings))
failures = st.lists(st.sampled_from(FailureReason))


@given(batches, failures)
def test_counts_agree_with_each_other(
    executed: list[tuple[list[int], BatchTiming]], failed: list[FailureReason]
) -> None:
    statistics = ModelStatistics("m", 1)
    for sizes, timing in executed:
        for _ in sizes:
            statistics.pending += 1
        statistics.pending -= len(sizes)
        statistics.execution(sum(sizes), timing)
        for size in sizes:
            statistics.success(size, 5, timing, 100)
    for reason in failed:
        statistics.failure(reason, 7)
    message = statistics.to_message()
    stats = message.inference_stats
    num_requests = sum(len(sizes) for sizes, _ in executed)
    assert stats.success.count == stats.queue.count == num_requests
    for stage in (stats.compute_input, stats.compute_infer, stats.compute_output):
        assert stage.count == num_requests
    assert message.execution_count == len(executed)
    assert sum(b.compute_infer.count for b in message.batch_stats) == len(executed)
    assert message.inference_count == sum(sum(sizes) for sizes, _ in executed)
    assert stats.fail.count == sum(statistics.failures.values()) == len(failed)
    assert stats.cache_hit.count == stats.cache_miss.count == 0
    assert statistics.pending == 0
    for histogram in statistics.histograms.values():
        assert sum(histogram.counts) == num_requests
    assert sum(statistics.batch_sizes.counts) == len(executed)


@given(st.lists(st.tuples(st.integers(1, 8), durations, durations), min_size=1), timings)
def test_a_batch_of_answers_counts_as_its_requests_one_by_one(
    requests: list[tuple[int, int, int]], timing: BatchTiming
) -> None:
    together, alone = ModelStatistics("m", 1), ModelStatistics("m", 1)
    sizes, queues_ns, totals_ns = zip(*requests, strict=True)
    together.answered(sum(sizes), list(queues_ns), list(totals_ns), timing)
    for batch_size, queue_ns, total_ns in requests:
        alone.success(batch_size, queue_ns, timing, total_ns)
        alone.first_response(total_ns)
    together.last_inference_ms = alone.last_inference_ms
    assert together.to_message() == alone.to_message()
    for one, other in zip(together.histograms.values(), alone.histograms.values(), strict=True):
        assert one.counts == other.counts
    assert together.first_responses.counts == alone.first_responses.counts


def test_times_are_summed_in_nanoseconds() -> None:
    statistics = ModelStatistics("m", 1)
    timing = BatchTiming(1, 20, 300)
    statistics.execution(2, timing)
    statistics.success(2, 4000, timing, 50_000)
    stats = statistics.to_message().inference_stats
    assert (stats.success.ns, stats.queue.ns) == (50_000, 4000)
    assert (stats.compute_input.ns, stats.compute_infer.ns, stats.compute_output.ns) == (1, 20, 300)


def test_decoupled_responses_are_counted_by_their_number() -> None:
    statistics = ModelStatistics("m", 1)
    statistics.response(0, 10, 1, ResponseOutcome.SUCCESS)
    statistics.response(0, 10, 1, ResponseOutcome.SUCCESS)
    statistics.response(1, 10, 1, ResponseOutcome.EMPTY)
    stats = statistics.to_message().response_stats
    assert stats["0"].success.count == 2
    assert stats["1"].empty_response.count == 1
    assert stats["1"].success.count == 0


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_puts_a_value_into_the_bucket_that_ends_at_or_above_it(
    values: list[float],
) -> None:
    histogram = Histogram((1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts[0] == sum(v <= 1 for v in values)
    assert histogram.counts[1] == sum(1 < v <= 10 for v in values)
    assert histogram.counts[2] == sum(v > 10 for v in values)


def test_what_is_all_computing_counts_as_its_execution_and_success_do() -> None:
    short, long = (ModelStatistics("m", 1, has_summaries=True) for _ in range(2))
    for batch_size, total_ns in ((1, 50), (3, 7_000_000), (1, 10**11)):
        short.computed_alone(batch_size, total_ns)
        timing = BatchTiming(0, total_ns, 0)
        long.execution(batch_size, timing)
        long.success(batch_size, 0, timing, total_ns)
    messages = [each.to_message() for each in (short, long)]
    for message in messages:
        message.last_inference = 0
    assert messages[0] == messages[1]
    for stage, histogram in short.histograms.items():
        assert histogram.counts == long.histograms[stage].counts
        assert histogram.total == long.histograms[stage].total
    assert short.batch_sizes.counts == long.batch_sizes.counts
    assert short.summaries is not None
    assert long.summaries is not None
    for stage, summary in short.summaries.items():
        assert summary.quantiles([0.5]) == long.summaries[stage].quantiles([0.5])

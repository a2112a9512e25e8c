"""What a request's sink counts: times by a clock that the test moves, tokens, ends."""

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    Choices,
    Chunk,
    ComputedStep,
    Finish,
    GenerateRequest,
    GenerateStatistics,
    Histogram,
    InstanceDied,
    InvalidRequest,
    QueueFull,
    Sampling,
    ServingError,
)
from trivet.backends.api.generate_statistics import token_bounds
from trivet.backends.llm.serving.statistics import MeasuredSink


class Recorder:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.errors: list[ServingError] = []

    def chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def fail(self, error: ServingError) -> None:
        self.errors.append(error)


class Site:
    """One request and its statistics."""

    def __init__(self, max_tokens: int | None = 8, choices: Choices | None = None) -> None:
        self.now_s = 100.0
        self.statistics = GenerateStatistics(1000, {})
        self.recorder = Recorder()
        sampling = Sampling(max_tokens=max_tokens)
        request = GenerateRequest("1", [1, 2, 3], sampling, prepared_s=0.1)
        request.choices = choices or request.choices
        self.sink = MeasuredSink(request, self.recorder, self.statistics, lambda: self.now_s)

    def chunk(self, after_s: float, chunk: Chunk) -> None:
        self.now_s += after_s
        self.sink.chunk(chunk)


def total(histogram: Histogram) -> tuple[int, float]:
    return sum(histogram.counts), round(histogram.total, 6)


def test_answered_request_is_timed_from_its_arrival_to_its_last_token() -> None:
    site = Site()
    site.chunk(0.5, Chunk("a", (1,), num_cached=2, queue_s=0.2))
    site.chunk(0.1, Chunk("b", (2,)))
    site.chunk(0.3, Chunk("c", (3,), finish=Finish("stop")))
    s = site.statistics
    assert total(s.first_token_s) == (1, 0.5)
    assert total(s.between_tokens_s) == (2, 0.4)
    assert total(s.per_token_s) == (1, 0.2)
    assert total(s.request_s) == (1, 0.9)
    assert total(s.prepare_s) == (1, 0.1)
    assert total(s.queue_s) == (1, 0.2)
    assert total(s.prefill_s) == (1, 0.3)
    assert total(s.decode_s) == (1, 0.4)
    assert total(s.inference_s) == (1, 0.7)
    assert len(site.recorder.chunks) == 3


def test_tokens_are_counted_as_they_come() -> None:
    site = Site()
    site.chunk(1, Chunk("a", (1, 2), num_cached=2))
    s = site.statistics
    assert (s.num_prompt_tokens, s.num_cached_tokens, s.num_generated_tokens) == (3, 2, 2)
    assert total(s.generated_tokens) == (0, 0)
    site.chunk(1, Chunk("b", (3,), finish=Finish("length")))
    assert total(s.prompt_tokens) == (1, 3)
    assert total(s.computed_tokens) == (1, 1)
    assert total(s.generated_tokens) == (1, 3)
    assert total(s.max_tokens) == (1, 8)
    assert s.finished == {"stop": 0, "length": 1, "abort": 0, "error": 0}


def test_request_without_max_tokens_tells_none() -> None:
    site = Site(max_tokens=None)
    site.chunk(1, Chunk("a", (1,), finish=Finish("stop")))
    assert total(site.statistics.max_tokens) == (0, 0)


def test_outputs_of_one_prompt_are_one_request_when_all_are_complete() -> None:
    choices = Choices(2)
    long, short = Site(choices=choices), Site(choices=choices)
    long.chunk(1, Chunk("abc", (1, 2, 3), finish=Finish("stop")))
    assert total(long.statistics.choices) == (0, 0)
    short.chunk(1, Chunk("a", (1,), finish=Finish("stop")))
    assert total(short.statistics.choices) == (1, 2)
    assert total(short.statistics.longest_tokens) == (1, 3)


def test_request_of_one_output_is_one_of_one() -> None:
    site = Site()
    site.chunk(1, Chunk("ab", (1, 2), finish=Finish("stop"), num_preemptions=2))
    s = site.statistics
    assert (total(s.choices), total(s.longest_tokens)) == ((1, 1), (1, 2))
    assert total(s.preemptions) == (1, 2)


def step(
    num_tokens: int, num_started: int, *, is_decode: bool, has_failed: bool, seconds: float
) -> ComputedStep:
    return ComputedStep(num_tokens, num_started, is_decode, has_failed, 1.0, seconds / 2, seconds)


def test_steps_that_no_request_begins_with_take_none_from_the_queue() -> None:
    s = GenerateStatistics(1000, {})
    s.note_step(step(40, 2, is_decode=False, has_failed=True, seconds=0.5))
    s.note_step(step(2, 0, is_decode=True, has_failed=False, seconds=0.125))
    assert total(s.step_tokens) == (2, 42)
    assert {kind: total(each) for kind, each in s.step_s.items()} == {
        "prefill": (1, 0.5), "decode": (1, 0.125),
    }  # fmt: skip
    assert total(s.forward_s["decode"]) == (1, 0.0625)
    assert total(s.choosing_s["prefill"]) == (1, 0.25)
    assert total(s.filling_s["prefill"]) == total(s.planning_s["decode"]) == (1, 1.0)
    assert total(s.filling_s["decode"]) == total(s.planning_s["prefill"]) == (0, 0)
    assert s.failed_steps == {"prefill": 1, "decode": 0}
    assert total(s.step_starts) == (1, 2)


def test_each_error_is_counted_once_and_handed_on() -> None:
    for error, expected in (
        (InvalidRequest("x"), {"validation": 1}),
        (QueueFull("x"), {"overloaded": 1, "queue_full": 1}),
        (InstanceDied("x"), {"not_ready": 1}),
        (BackendFailed("x"), {"generation": 1, "error": 1}),
        (Cancelled("x"), {"abort": 1}),
    ):
        site = Site()
        site.sink.fail(error)
        s = site.statistics
        counts = {**s.finished, **s.rejected, **s.failed}
        assert {name: count for name, count in counts.items() if count} == expected
        assert site.recorder.errors == [error]


def test_engine_that_dies_within_an_output_is_an_error_of_it() -> None:
    site = Site()
    site.chunk(1, Chunk("a", (1,)))
    site.sink.fail(InstanceDied("x"))
    assert site.statistics.finished["error"] == 1
    assert site.statistics.rejected["not_ready"] == 0


def test_token_bounds_go_in_steps_of_1_2_5_to_the_model_s_length() -> None:
    assert token_bounds(8192)[:6] == (1, 2, 5, 10, 20, 50)
    assert token_bounds(8192)[-1] == 5000
    assert token_bounds(1) == (1,)

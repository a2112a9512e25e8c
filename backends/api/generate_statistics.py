"""What has happened to the requests of a generating model. Owned by the event loop.

The hot path adds plain numbers; the metrics page reads them when asked.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from trivet.backends.api.histogram import Histogram

# vLLM's bounds: the quantiles of existing dashboards depend on them.
FIRST_TOKEN_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
# The first three are ours: small models give a token in less than 10 ms.
TOKEN_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BOUNDS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STEP_TOKEN_BOUNDS = (1.0, *(float(2**power) for power in range(3, 15)))
CHOICE_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)
# The 0 is ours: it tells those that were never set back.
PREEMPTION_BOUNDS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
MAX_STEP_STARTS = 500
STEP_KINDS = PREFILL, DECODE = "prefill", "decode"
FINISH_REASONS = ("stop", "length", "abort", "error")
REJECTIONS = ("queue_full", "not_ready")
FAILURES = ("validation", "overloaded", "generation")


def token_bounds(max_tokens: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20 … up to `max_tokens`."""
    bounds: list[float] = []
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power > max_tokens:
                return tuple(bounds) or (1.0,)
            bounds.append(float(factor * power))
        power *= 10


class ComputedStep(NamedTuple):
    """A step that has ended, as it was measured where it was computed."""

    num_tokens: int
    num_started: int
    """Requests that began with it."""
    is_decode: bool
    """Of one token of each sequence."""
    has_failed: bool
    planning_s: float
    """Choosing its requests and tokens."""
    forward_s: float
    """The model, from its input to its logits."""
    seconds: float
    """All of it but the planning."""


class GenerateStatistics:
    """Counters and histograms of one loaded model; they begin anew when it is loaded anew."""

    def __init__(self, max_model_len: int, cache: Mapping[str, str], max_adapters: int = 0) -> None:
        """`cache`: what does not change about the key/value cache, by name."""
        self.cache = cache
        self.max_adapters = max_adapters
        """So many can be computed at once."""
        self.waiting_adapters: Counter[str] = Counter()
        """Requests of each that have no token yet; of those that have none, there is no entry."""
        self.running_adapters: Counter[str] = Counter()
        self.num_requests = 0
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.num_generated_tokens = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.rejected = dict.fromkeys(REJECTIONS, 0)
        self.failed = dict.fromkeys(FAILURES, 0)
        self.first_token_s = Histogram(FIRST_TOKEN_BOUNDS_S)
        self.between_tokens_s = Histogram(TOKEN_BOUNDS_S)
        self.per_token_s = Histogram(TOKEN_BOUNDS_S)
        """A request's mean time for each token after the first."""
        self.request_s = Histogram(REQUEST_BOUNDS_S)
        self.prepare_s = Histogram(REQUEST_BOUNDS_S)
        """Before a request came to the engine: prompt written and tokenised."""
        self.queue_s = Histogram(REQUEST_BOUNDS_S)
        self.prefill_s = Histogram(REQUEST_BOUNDS_S)
        self.decode_s = Histogram(REQUEST_BOUNDS_S)
        self.inference_s = Histogram(REQUEST_BOUNDS_S)
        bounds = token_bounds(max_model_len)
        self.prompt_tokens = Histogram(bounds)
        self.computed_tokens = Histogram(bounds)
        """Prompt tokens that were not in the cache."""
        self.generated_tokens = Histogram(bounds)
        self.max_tokens = Histogram(bounds)
        """`max_tokens` of requests that gave it."""
        self.longest_tokens = Histogram(bounds)
        """Tokens of the longest of the outputs that were wanted of a prompt."""
        self.choices = Histogram(CHOICE_BOUNDS)
        """How many were."""
        self.preemptions = Histogram(PREEMPTION_BOUNDS)
        self.step_tokens = Histogram(STEP_TOKEN_BOUNDS)
        self.step_starts = Histogram(token_bounds(MAX_STEP_STARTS))
        """Requests that a step began with, of steps that began with any."""
        self.step_s = {kind: Histogram(TOKEN_BOUNDS_S) for kind in STEP_KINDS}
        self.forward_s = {kind: Histogram(TOKEN_BOUNDS_S) for kind in STEP_KINDS}
        """The part of a step that the model takes."""
        self.choosing_s = {kind: Histogram(TOKEN_BOUNDS_S) for kind in STEP_KINDS}
        """The rest of it: tokens drawn, text and ends told."""
        self.filling_s = {kind: Histogram(TOKEN_BOUNDS_S) for kind in STEP_KINDS}
        """Planning of steps that begin requests."""
        self.planning_s = {kind: Histogram(TOKEN_BOUNDS_S) for kind in STEP_KINDS}
        """Planning of those that only go on, without the requests that have ended."""
        self.failed_steps = dict.fromkeys(STEP_KINDS, 0)

    def note_step(self, step: ComputedStep) -> None:
        """The engine has computed a step."""
        kind = DECODE if step.is_decode else PREFILL
        self.step_tokens.observe(step.num_tokens)
        self.step_s[kind].observe(step.seconds)
        self.forward_s[kind].observe(step.forward_s)
        self.choosing_s[kind].observe(max(step.seconds - step.forward_s, 0.0))
        if step.num_started:
            self.step_starts.observe(step.num_started)
            self.filling_s[kind].observe(step.planning_s)
        else:
            self.planning_s[kind].observe(step.planning_s)
        if step.has_failed:
            self.failed_steps[kind] += 1


@runtime_checkable
class Measured(Protocol):
    """A generating model that tells what has happened to its requests."""

    @property
    def statistics(self) -> GenerateStatistics:
        """Its counters, which go on changing."""

    @property
    def stats(self) -> Mapping[str, float]:
        """Its engine's last numbers: running, waiting, preemptions, prompt_tokens, cached_tokens,
        kv_usage (0 … 1), num_blocks, host_synchronisations; where tokens are guessed drafts,
        draft_tokens, accepted_tokens and accepted_at_0 …, by place. Empty before the first."""

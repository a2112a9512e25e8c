"""How much a key may use: requests per second and per day, tokens per minute."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trivet.server.auth.errors import RateLimited

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key, as the keys file says; 0: no limit."""

    requests_per_second: float = 0.0
    requests_burst: int = 0
    """How many may come at once; 0: as many as one second allows, at least 1."""
    requests_per_day: int = 0
    tokens_per_minute: int = 0
    cost_per_day: float = 0.0
    """In the currency of the server's prices."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Left:
    """What remains of one limit."""

    limit: int
    remaining: int
    reset_s: float
    """Until all of it is there again."""


class Bucket:
    """Fills at a rate up to its capacity. May be overdrawn, which delays the next."""

    def __init__(self, rate_per_s: float, capacity: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = capacity
        self._level = capacity
        self._filled_at_s = now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` is there; 0: now."""
        self._fill(now_s)
        return max(0.0, (amount - self._level) / self._rate_per_s)

    def take(self, amount: float) -> None:
        """Takes it, there or not."""
        self._level -= amount

    def left(self, now_s: float) -> Left:
        """What remains."""
        self._fill(now_s)
        reset_s = (self._capacity - self._level) / self._rate_per_s
        return Left(int(self._capacity), max(0, math.floor(self._level)), reset_s)

    def _fill(self, now_s: float) -> None:
        gained = (now_s - self._filled_at_s) * self._rate_per_s
        self._level = min(self._capacity, self._level + gained)
        self._filled_at_s = now_s


def whole_day_s() -> float:
    """How long a day lasts that begins with its first request."""
    return DAY_S


class Window:
    """A quota of a period that begins with the first use after the last one ended."""

    def __init__(self, quota: int, lasts_s: Callable[[], float]) -> None:
        self._quota = quota
        self._lasts_s = lasts_s
        self._ends_at_s = -math.inf
        self._num_used = 0

    def wait_s(self, now_s: float) -> float:
        """How long until one more may come; 0: now."""
        if now_s >= self._ends_at_s or self._num_used < self._quota:
            return 0.0
        return self._ends_at_s - now_s

    def take(self, now_s: float, count: int = 1) -> None:
        """One more, or several."""
        if now_s >= self._ends_at_s:
            self._ends_at_s = now_s + self._lasts_s()
            self._num_used = 0
        self._num_used += count

    def left(self, now_s: float) -> Left:
        """What remains."""
        if now_s >= self._ends_at_s:
            return Left(self._quota, self._quota, 0.0)
        left = max(0, self._quota - self._num_used)
        return Left(self._quota, left, self._ends_at_s - now_s)


class Allowance:
    """What one key has left. Owned by the event loop."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        clock: Callable[[], float],
        day_lasts_s: Callable[[], float] = whole_day_s,
    ) -> None:
        """`day_lasts_s`: asked when a day begins."""
        self.limits = limits
        self.requests_taken = 0
        self.tokens_charged = 0
        """Both since the start, by this server's clients."""
        self._name = name
        self._clock = clock
        now_s = clock()
        rate = limits.requests_per_second
        burst = limits.requests_burst or max(1, math.floor(rate))
        self._second = Bucket(rate, burst, now_s) if rate else None
        self._day = (
            Window(limits.requests_per_day, day_lasts_s) if limits.requests_per_day else None
        )
        per_minute = limits.tokens_per_minute
        self._tokens = Bucket(per_minute / 60, per_minute, now_s) if per_minute else None

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited."""
        return self._tokens is not None

    def take_request(self) -> None:
        """One more request. Raises RateLimited, and takes nothing then."""
        now_s = self._clock()
        if self._day is not None and (wait_s := self._day.wait_s(now_s)):
            raise self._refusal(f"{self.limits.requests_per_day} requests per day", wait_s)
        if self._second is not None:
            if wait_s := self._second.wait_s(1.0, now_s):
                rate = self.limits.requests_per_second
                raise self._refusal(f"{rate:g} requests per second", wait_s)
            self._second.take(1.0)
        if self._day is not None:
            self._day.take(now_s)
        self.requests_taken += 1

    def require_tokens(self) -> None:
        """Raises RateLimited while the tokens of earlier requests are not paid off."""
        if self._tokens is not None and (wait_s := self._tokens.wait_s(1.0, self._clock())):
            text = f"{self.limits.tokens_per_minute} tokens per minute"
            raise self._refusal(text, wait_s, "tokens")

    def charge_tokens(self, count: int) -> None:
        """Tokens were read or written."""
        if self._tokens is not None:
            self._tokens.take(count)
            self.tokens_charged += count

    def take_for_others(self, requests: int, tokens: int, requests_of_day: int) -> None:
        """What the key's clients have used at other servers: lately, and of the day's quota."""
        if self._second is not None:
            self._second.take(requests)
        if self._tokens is not None:
            self._tokens.take(tokens)
        if self._day is not None and requests_of_day:
            self._day.take(self._clock(), requests_of_day)

    def require_budget(self, spent: float, day_left_s: float) -> None:
        """Raises RateLimited where so much of today's budget is all of it."""
        most = self.limits.cost_per_day
        if most and spent >= most:
            raise self._refusal(f"a cost of {most:g} per day", day_left_s, "cost")

    def headers(self) -> Mapping[str, str]:
        """What is left, under OpenAI's names; of two limits of requests the tighter one."""
        now_s = self._clock()
        told: dict[str, str] = {}
        limits = (self._second, self._day)
        lefts = [limit.left(now_s) for limit in limits if limit is not None]
        if lefts:
            told |= _headers("requests", min(lefts, key=lambda left: left.remaining))
        if self._tokens is not None:
            told |= _headers("tokens", self._tokens.left(now_s))
        return told

    def _refusal(self, limit: str, wait_s: float, kind: str = "requests") -> RateLimited:
        return RateLimited(
            f"key '{self._name}' has reached its limit of {limit}; try again in "
            f"{_duration(wait_s)}, or have the limit raised in the server's keys file",
            kind,
            wait_s,
        )


def _headers(kind: str, left: Left) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(left.limit),
        f"x-ratelimit-remaining-{kind}": str(left.remaining),
        f"x-ratelimit-reset-{kind}": _duration(left.reset_s),
    }


def _duration(duration_s: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s, 2h0m0s."""
    if duration_s < 1:
        return f"{math.ceil(duration_s * 1000)}ms"
    if duration_s < 60:
        return f"{duration_s:.3g}s"
    minutes, seconds = divmod(math.ceil(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"

"""Which arm of a split a request gets.

Requests with a key go by weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", 1998; with weights as in Schindelhauer and Schomaker, "Weighted
distributed hash tables", 2005): each arm draws a number from the key, and the best one gets it. So
a key has the same arm in every process and after a restart; an arm that grows takes keys from the
others, and none of these gets another's.

Requests without a key go by Tijdeman's rule ("The chairman assignment problem", 1980): after any
number of them, each arm has had its share to within one request. What each lacks is handed on to
the split that follows over the same shares, so that this holds over loads of a model, too. While an
arm is away nobody can give it what it lacks, and the others take turns by what they do.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from struct import Struct
from typing import Generic, TypeVar

Arm = TypeVar("Arm")
MAX_ARMS = 8
"""As many as a digest has numbers of 64 bits."""
_LOG_2_64 = 64 * log(2)


class Split(Generic[Arm]):
    """Shares requests out by weights. Owned by the event loop, which counts those without a key."""

    __slots__ = ("_arms", "_draws", "_owed", "_running", "_salt", "_total", "_weights")

    def __init__(
        self, arms: Sequence[Arm], weights: Sequence[int], salt: str, owed: Sequence[float] = ()
    ) -> None:
        """`weights`: not all zero; `salt`: makes the splits of two models independent; `owed`: of
        the split of as many arms that this one follows."""
        self._arms = tuple(arms)
        self._weights = tuple(weights)
        self._total = sum(weights)
        # An arm's place decides what it draws: those without weight keep theirs, and get nothing.
        self._running = tuple((i, 1 / weight) for i, weight in enumerate(weights) if weight)
        self._draws = Struct(f"<{len(arms)}Q").unpack_from
        self._salt = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._owed = [round(each * self._total) for each in owed] or [0] * len(arms)
        """How many requests without a key each arm lacks, in parts of `_total`."""

    @property
    def owed(self) -> Sequence[float]:
        """How many requests without a key each arm lacks."""
        return [each / self._total for each in self._owed]

    def choose(self, key: int | str) -> Arm:
        """The arm of a request with this key; the empty key is none."""
        if key == "":
            return self._arms[self._next()]
        text = key if isinstance(key, str) else str(key)
        draws = self._draws(blake2b(self._salt + text.encode("utf-8", "surrogatepass")).digest())
        best, least = 0, float("inf")
        for i, inverse in self._running:
            drawn = (_LOG_2_64 - log(draws[i] + 1)) * inverse
            if drawn < least:
                best, least = i, drawn
        return self._arms[best]

    def _next(self) -> int:
        if len(self._running) == 1:
            return self._running[0][0]
        total, owed = self._total, self._owed
        parts = 2 * len(self._running) - 2
        best, least = -1, float("inf")
        for i, inverse in self._running:
            owed[i] += self._weights[i]
            due = owed[i] * parts
            if due >= total:
                # How long it can still wait without lacking more than it may.
                wait = ((parts - 1) * total - due) * inverse
                if wait < least:
                    best, least = i, wait
        if best < 0:  # the arms that are away lack all that is lacking
            best = max((owed[i], i) for i, _ in self._running)[1]
        owed[best] -= total
        return best

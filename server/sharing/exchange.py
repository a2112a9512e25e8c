"""The task that tells what keys have used here and hears what they have used elsewhere.

Requests wait for nothing: limits are held by each server, which charges itself for the others a
moment later. So all servers together may let as much more pass as comes within one period.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from typing import Protocol

from trivet.server.auth.keyring import Keyring
from trivet.server.auth.limits import Allowance
from trivet.server.cost.ledger import Ledger, today
from trivet.server.logs.outage import Outage
from trivet.server.sharing.totals import News, Total

log = logging.getLogger(__name__)
PERIOD_S = 0.2
PAUSE_S = 2.0
"""After a failure."""
REQUESTS, TOKENS, COST = "requests", "tokens", "cost"


_ALONE = (
    "each server holds the limits of keys by itself, for Redis does not tell what they use "
    "elsewhere (--limits-redis): %s"
)


class Totals(Protocol):
    """Where the sums are."""

    async def exchange(self, day: str, said: Sequence[tuple[str, News]]) -> list[float]:
        """Adds what is said of each sum of a day; returns the sums. Raises OSError."""

    async def close(self) -> None:
        """Ends it."""


class UseExchange:
    """Owned by the event loop."""

    def __init__(
        self,
        totals: Totals,
        keyring: Keyring,
        ledger: Ledger | None,
        today: Callable[[], date] = today,
    ) -> None:
        self._totals = totals
        self._keyring = keyring
        self._ledger = ledger
        self._today = today
        self._day = ""
        self._known: dict[str, Total] = {}
        self._outage = Outage()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Says what is new for the last time."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.once()
        await self._totals.close()

    async def _run(self) -> None:
        while True:
            is_shared = await self.once()
            await asyncio.sleep(PERIOD_S if is_shared else PAUSE_S)

    async def once(self) -> bool:
        """Tells and hears. False: the store could not be reached, and nothing was heard."""
        day = self._today().isoformat()
        if day != self._day:
            self._begin(day)
        used = self._used()
        said = [(name, self._total(name, own).news(own)) for name, own in used.items()]
        if not said:
            return True
        try:
            sums = await self._totals.exchange(day, said)
        except OSError as error:
            if self._outage.goes_on():
                log.warning(_ALONE, error)
            return False
        if self._outage.ends():
            log.info("limits of keys are those of all servers together again")
        for (name, news), total in zip(said, sums, strict=True):
            self._hear(name, news, total)
        return True

    def _begin(self, day: str) -> None:
        """A new day has sums of its own; what is not told yet is told of that."""
        self._day = day
        self._known = {name: Total(told=each.told) for name, each in self._known.items()}

    def _total(self, name: str, own: float) -> Total:
        """A server that was there today before has told what it then spent."""
        known = self._known.get(name)
        if known is None:
            known = Total(own, own) if name.endswith(COST) else Total()
            self._known[name] = known
        return known

    def _used(self) -> dict[str, float]:
        """What is limited, and how much of it was used here."""
        used: dict[str, float] = {}
        for key, allowance in self._keyring.allowances().items():
            limits = allowance.limits
            if limits.requests_per_second or limits.requests_per_day:
                used[f"{key}/{REQUESTS}"] = allowance.requests_taken
            if limits.tokens_per_minute:
                used[f"{key}/{TOKENS}"] = allowance.tokens_charged
            if limits.cost_per_day and self._ledger is not None:
                used[f"{key}/{COST}"] = self._ledger.own_today(key)
        return used

    def _hear(self, name: str, news: News, total: float) -> None:
        known = self._known[name]
        was_heard = known.is_heard
        by_others = known.hear(news, total)
        if not by_others:
            return
        key, _, kind = name.rpartition("/")
        if kind == COST and self._ledger is not None:
            self._ledger.add_for_others(key, by_others)
        elif allowance := self._keyring.allowances().get(key):
            _charge(allowance, kind, int(by_others), was_heard=was_heard)


def _charge(allowance: Allowance, kind: str, count: int, *, was_heard: bool) -> None:
    """What others had used before this server first heard of it counts for the day alone."""
    recent = count if was_heard else 0
    if kind == REQUESTS:
        allowance.take_for_others(recent, 0, count)
    else:
        allowance.take_for_others(0, recent, 0)

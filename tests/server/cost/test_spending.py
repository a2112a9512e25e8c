"""What requests are charged: their part of batches and engines, once, whatever becomes of them."""

import asyncio
import os
import threading
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import CountingSink
from patience import patience

from trivet.backends.api import Execution, InferRequest, InferResponse, Tensor, Unavailable
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import Allowance, Limits
from trivet.server.cost.bookkeeping import Bookkeeping
from trivet.server.cost.ledger import Account, Ledger, Spent, days
from trivet.server.cost.shared_clock import SharedClock
from trivet.server.cost.spending import EndingSink, Spending, SpendingTrace

ACCOUNT = Account("m", 1, "key")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Batched:
    """Four rows in a batch."""

    size = 4


class Pricing:
    """A second costs 2; model "engine" shares its time out."""

    def __init__(self, clock: Clock) -> None:
        self.clock = SharedClock(clock)

    def per_second(self, name: str, version: int | str | None) -> float:
        return 2.0

    def clock_of(self, name: str, version: int | str | None) -> SharedClock | None:
        return self.clock if name == "engine" else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "costs", lambda: date(2026, 1, 31))


def request(name: str, rows: int = 1) -> tuple[InferRequest, dict[str, Tensor]]:
    inputs = {"x": Tensor.of("x", np.zeros((rows, 2), np.float32))}
    return InferRequest(name, None, "", inputs), inputs


def execution(seconds: float) -> Execution:
    batch: Any = Batched()
    return Execution(0, 0, 0, 0, int(seconds * 1e9), batch)


def test_a_request_pays_for_its_rows_of_a_batch_and_for_all_models_it_needs(
    ledger: Ledger, clock: Clock
) -> None:
    told: dict[str, str] = {}
    spending = Spending(ACCOUNT, ledger, told)
    sink = EndingSink(CountingSink(), spending.end)
    trace = SpendingTrace(spending, Pricing(clock))
    asked, inputs = request("m", rows=2)
    own = trace.begin(asked, 1, inputs)
    own.executed(execution(4.0))
    step_request, step_inputs = request("step")
    own.begin(step_request, 1, step_inputs).executed(execution(4.0))
    sink.send(InferResponse("m", 1, "", []), final=True)

    assert told["x-trivet-cost"] == "6.000000000", "2 rows of 4 s, and 1 of 4 s, at 2 a second"
    assert ledger.accounts == {ACCOUNT: Spent(1, 3.0, 6.0)}
    assert ledger.of_version("m", 1) == Spent(1, 3.0, 6.0)


def test_an_engine_s_time_is_shared_evenly(clock: Clock) -> None:
    shared = SharedClock(clock)
    first = shared.begin()
    clock.now_s += 2
    second = shared.begin()
    clock.now_s += 4
    parts = [shared.end(first)]
    clock.now_s += 1
    parts.append(shared.end(second))
    clock.now_s += 50  # nobody is there
    third = shared.begin()
    clock.now_s += 1

    assert parts == [4.0, 3.0]
    assert shared.end(third) == 1.0, "what nobody used nobody pays"


def test_a_failed_request_is_charged_once(ledger: Ledger, clock: Clock) -> None:
    spending = Spending(ACCOUNT, ledger, {})
    inner = CountingSink()
    sink = EndingSink(inner, spending.end)
    asked, inputs = request("engine")
    part = SpendingTrace(spending, Pricing(clock)).begin(asked, 1, inputs)
    ending = part.ending(sink)
    clock.now_s += 3
    ending.fail(Unavailable("gone"))

    assert ledger.accounts[ACCOUNT] == Spent(1, 3.0, 6.0)
    assert inner.error is not None


def test_days_are_written_down_and_go_on_after_a_restart(tmp_path: Path) -> None:
    today = [date(2026, 1, 31)]
    first = Ledger(tmp_path, lambda: today[0])
    first.add(ACCOUNT, 1.0, 2.0)
    first.write()
    first.close()
    second = Ledger(tmp_path, lambda: today[0])
    second.add(ACCOUNT, 1.0, 2.0)
    today[0] = date(2026, 2, 1)
    second.add(ACCOUNT, 0.5, 1.0)
    second.write()
    second.close()

    assert dict(days(tmp_path)) == {
        "2026-01-31": {ACCOUNT: Spent(2, 2.0, 4.0)},
        "2026-02-01": {ACCOUNT: Spent(1, 0.5, 1.0)},
    }


async def test_who_writes_down_waits_for_the_disk_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today, threads = [date(2026, 1, 31)], list[int]()
    kept = Ledger(tmp_path, lambda: today[0])
    monkeypatch.setattr(os, "fsync", lambda _: threads.append(threading.get_ident()))
    kept.add(ACCOUNT, 1.0, 2.0)
    for day in (date(2026, 2, 1), date(2026, 1, 31), date(2026, 2, 1)):  # a clock that jumps
        today[0] = day
        kept.add(ACCOUNT, 0.5, 1.0)
    books = Bookkeeping(kept, 0.001)
    books.start()
    async with asyncio.timeout(patience()):
        while len(threads) < 2:
            await asyncio.sleep(0.001)
    await books.close()

    assert threading.get_ident() not in threads
    assert {path: of[ACCOUNT] for path, of in days(tmp_path)} == {
        "2026-01-31": Spent(2, 1.5, 3.0),
        "2026-02-01": Spent(2, 1.0, 2.0),
    }


def test_a_file_cut_in_half_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "2026-01-31.json").write_text('[{"model": "m", "ver')
    ledger = Ledger(tmp_path, lambda: date(2026, 1, 31))
    ledger.add(ACCOUNT, 1.0, 2.0)
    ledger.write()

    assert dict(days(tmp_path)) == {"2026-01-31": {ACCOUNT: Spent(1, 1.0, 2.0)}}


def test_servers_that_share_a_folder_add_up(tmp_path: Path) -> None:
    first, second = (Ledger(tmp_path, lambda: date(2026, 1, 31)) for _ in range(2))
    for ledger in (first, second):
        ledger.add(ACCOUNT, 1.0, 2.0)
        ledger.write()
    first.hear_others()

    assert dict(days(tmp_path)) == {"2026-01-31": {ACCOUNT: Spent(2, 2.0, 4.0)}}
    assert first.spent_today("key") == 4.0
    first.close()
    third = Ledger(tmp_path, lambda: date(2026, 1, 31))
    assert third.spent_today("key") == 4.0, "it goes on where the first one was"
    third.add(ACCOUNT, 1.0, 1.0)
    third.write()
    assert dict(days(tmp_path))["2026-01-31"][ACCOUNT] == Spent(3, 3.0, 5.0)
    second.close()
    third.close()


def test_a_budget_ends_with_its_reason_and_begins_anew_with_the_day(
    tmp_path: Path, clock: Clock
) -> None:
    today = [date(2026, 1, 31)]
    ledger = Ledger(tmp_path, lambda: today[0])
    allowance = Allowance("key", Limits(cost_per_day=1.5), clock)
    allowance.require_budget(ledger.spent_today("key"), 60.0)
    ledger.add(ACCOUNT, 1.0, 2.0)
    with pytest.raises(RateLimited, match=r"key 'key' has reached its limit of a cost of 1\.5 per"):
        allowance.require_budget(ledger.spent_today("key"), 60.0)

    today[0] = date(2026, 2, 1)
    allowance.require_budget(ledger.spent_today("key"), 60.0)
    ledger.close()

"""Charts: what counters and buckets become, and how much is kept."""

from dataclasses import replace

import orjson
import pytest

from trivet.server.console.history import COLUMNS, KEPT, Counts, History, figures, quantiles

BOUNDS = (0.001, 0.01, 0.1)
NONE = Counts(BOUNDS, (0, 0, 0, 0))


def column(name: str, counts: list[Counts], seconds: float = 5.0) -> float | None:
    return figures(counts, seconds)[COLUMNS.index(name)]


def test_rates_are_of_what_came_since() -> None:
    before = Counts(BOUNDS, (10, 0, 0, 0), 1.0, 2, 5, 10.0, 100)
    now = Counts(BOUNDS, (15, 5, 0, 0), 1.5, 4, 7, 20.0, 150, waiting=3, cache=0.25)
    gained = [now.since(before)]
    assert column("requests", gained) == 2.0
    assert column("failures", gained) == pytest.approx(0.4)
    assert column("queue_ms", gained) == pytest.approx(50.0)
    assert column("batch", gained) == 5.0
    assert column("tokens", gained) == 10.0
    assert column("waiting", gained) == 3
    assert column("cache", gained) == 0.25


def test_counters_that_begin_anew_have_nothing_before() -> None:
    before = Counts(BOUNDS, (10, 0, 0, 0))
    now = Counts(BOUNDS, (3, 0, 0, 0))
    assert now.since(before) == now


def test_quantiles_lie_where_the_buckets_say() -> None:
    half, most, nearly_all = quantiles([replace(NONE, latencies=(50, 40, 10, 0))])
    assert half == pytest.approx(0.001)
    assert most == pytest.approx(0.01)
    assert nearly_all is not None
    assert 0.01 < nearly_all < 0.1
    assert quantiles([replace(NONE, latencies=(0, 0, 0, 1))]) == [0.1, 0.1, 0.1]
    assert quantiles([NONE]) == [None, None, None]


def test_models_with_other_buckets_are_counted_together() -> None:
    slow = Counts((1.0, 2.0), (0, 100, 0))
    fast = replace(NONE, latencies=(100, 0, 0, 0))
    half, most, _ = quantiles([slow, fast])
    assert half == pytest.approx(0.001)
    assert most is not None
    assert most > 1.0


def test_an_hour_is_kept_and_told_from_where_one_is() -> None:
    history = History(17)
    for number in range(KEPT + 5):
        history.take(number, 5.0, {"m": [replace(NONE, latencies=(1, 0, 0, 0))]}, {"cores": 0.1})
    told = orjson.loads(b"".join(history.since(0)))
    assert told["started"] == 17
    assert len(told["samples"]) == KEPT
    assert told["samples"][0]["t"] == 5
    later = orjson.loads(b"".join(history.since(told["number"] - 2)))
    assert [each["t"] for each in later["samples"]] == [KEPT + 3, KEPT + 4]
    assert orjson.loads(b"".join(history.since(told["number"])))["samples"] == []
    assert len(orjson.loads(b"".join(history.since(10**9)))["samples"]) == KEPT


def test_the_busiest_models_are_kept_and_all_are_counted() -> None:
    history = History(0)
    models = {f"m{count}": [replace(NONE, latencies=(count, 0, 0, 0))] for count in range(1, 101)}
    history.take(0, 1.0, models, {})
    (sample,) = orjson.loads(b"".join(history.since(0)))["samples"]
    assert "m100" in sample["models"]
    assert "m1" not in sample["models"]
    assert sample["all"][0] == sum(range(1, 101))

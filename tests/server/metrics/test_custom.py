"""The store of the metrics that models make up: who holds what, and what may stand beside what."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trivet.backends.api import InvalidRequest
from trivet.backends.api.meters import Meter, MeterChange, MeterKind
from trivet.server.metrics.custom import CustomMetrics
from trivet.server.metrics.text import Page

HITS = Meter("hits", "How often", MeterKind.COUNTER)
OF_A = Meter("hits", "How often", MeterKind.COUNTER, (("of", "a"),))
TIMES = Meter("times", "How long", MeterKind.HISTOGRAM)
BUCKETS = Meter("times", "How long", MeterKind.HISTOGRAM, (), (0.5, 2.0))


def page(store: CustomMetrics) -> str:
    made = Page()
    store.write(made)
    for family in text_string_to_metric_families(made.text()):
        assert family.samples
    return made.text()


def test_owners_share_what_has_the_same_name_and_labels() -> None:
    store = CustomMetrics()
    one, other = store.owned(), store.owned()
    for meters in (one, other):
        meters.open(HITS)
        meters.open(OF_A)
    one.change(OF_A, MeterChange.INCREMENT, 2)
    other.change(OF_A, MeterChange.INCREMENT, 3)
    assert one.value(OF_A) == other.value(OF_A) == 5
    assert page(store) == '# HELP hits How often\n# TYPE hits counter\nhits{of="a"} 5\n'


def test_histograms_and_gauges_are_on_the_page() -> None:
    store = CustomMetrics()
    meters = store.owned()
    level = Meter("level", "Up\nor \\ down", MeterKind.GAUGE, ())
    for meter in (TIMES, BUCKETS, level):
        meters.open(meter)
    for value in (0.5, 1.0, 9.0):
        meters.change(BUCKETS, MeterChange.OBSERVE, value)
    meters.change(level, MeterChange.SET, 7)
    meters.change(level, MeterChange.INCREMENT, -2.5)
    assert page(store).splitlines() == [
        r"# HELP level Up\nor \\ down",
        "# TYPE level gauge",
        "level 4.5",
        "# HELP times How long",
        "# TYPE times histogram",
        'times_bucket{le="0.5"} 1',
        'times_bucket{le="2"} 2',
        'times_bucket{le="+Inf"} 3',
        "times_sum 10.5",
        "times_count 3",
    ]


def test_what_nobody_holds_any_more_is_gone() -> None:
    store = CustomMetrics()
    one, other = store.owned(), store.owned()
    for meters in (one, other):
        meters.open(HITS)
        meters.open(OF_A)
    one.close(OF_A)
    one.close(HITS)
    assert 'hits{of="a"} 0' in page(store)
    other.close(OF_A)
    other.close(OF_A)  # once more than it was opened
    assert page(store) == ""
    with pytest.raises(InvalidRequest, match="not there any more"):
        other.value(OF_A)
    with pytest.raises(InvalidRequest, match="is there already"):
        one.open(Meter("hits", "Something else", MeterKind.COUNTER))
    other.close(HITS)
    one.open(Meter("hits", "Something else", MeterKind.GAUGE))


def test_a_metric_begins_anew_when_it_was_gone() -> None:
    store = CustomMetrics()
    meters = store.owned()
    for _ in range(2):
        meters.open(OF_A)
        meters.change(OF_A, MeterChange.INCREMENT, 1)
        assert meters.value(OF_A) == 1
        meters.close(OF_A)


def test_an_owner_that_is_gone_holds_nothing() -> None:
    store = CustomMetrics()
    one, other = store.owned(), store.owned()
    for meters in (one, other):
        meters.open(HITS)
        meters.open(OF_A)
    one.release()
    one.close(OF_A)
    assert 'hits{of="a"} 0' in page(store)
    other.release()
    assert page(store) == ""


@pytest.mark.parametrize(
    ("meter", "reason"),
    [
        (Meter("hits", "How often", MeterKind.GAUGE), "is there already, as a counter"),
        (Meter("hits", "How rarely", MeterKind.COUNTER), "described as 'How often'"),
        (Meter("nv_inference_count", "x", MeterKind.COUNTER), "are the server's own"),
        (Meter("trivet_x", "x", MeterKind.COUNTER), "are the server's own"),
        (Meter("no name", "x", MeterKind.COUNTER), "no name of a metric"),
        (Meter("times_sum", "x", MeterKind.COUNTER), "histogram 'times' has on the page, too"),
        (Meter("hits", "How often", MeterKind.COUNTER, (("a b", "c"),)), "no name of a label"),
        (Meter("hits", "How often", MeterKind.COUNTER, (("__a", "c"),)), "no name of a label"),
        (Meter("times", "How long", MeterKind.HISTOGRAM, (), (1.0,)), r"buckets \[0.5, 2.0\]"),
        (Meter("x", "", MeterKind.HISTOGRAM, (("le", "1"),), (1.0,)), "no name of a label"),
    ],
)
def test_what_cannot_stand_beside_the_others_is_refused(meter: Meter, reason: str) -> None:
    store = CustomMetrics()
    meters = store.owned()
    for each in (HITS, OF_A, TIMES, BUCKETS):
        meters.open(each)
    before = page(store)
    with pytest.raises(InvalidRequest, match=reason):
        meters.open(meter)
    assert page(store) == before


def test_every_name_of_the_server_s_own_is_refused() -> None:
    """Its names begin with few prefixes; see tests/server/metrics/test_page.py for the names."""
    store = CustomMetrics()
    for name in ("nv_cpu_utilization", "trivet_model_ready", "vllm:x", "process_open_fds"):
        with pytest.raises(InvalidRequest, match="are the server's own"):
            store.owned().open(Meter(name, "", MeterKind.GAUGE))

"""The metrics page: Triton's names to the letter, in a format that Prometheus reads."""

import gzip
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
import tritonclient.http as httpclient
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families
from serving import RunningServer, write_identity

from trivet.backends.api import CopyKind, InvalidConfig
from trivet.server.metrics.config import MetricsConfig
from trivet.server.metrics.machine import Machine, write_process
from trivet.server.metrics.page import write_models
from trivet.server.metrics.text import Format, Page
from trivet.server.scheduling.statistics import BatchTiming, FailureReason, ModelStatistics

NV_COUNTERS = (
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
)


APART = 'parameters { key: "isolation" value { string_value: "process" } }'


def model() -> ModelStatistics:
    statistics = ModelStatistics("m", 3)
    timing = BatchTiming(1000, 2_000_000, 3000)
    statistics.execution(4, timing)
    statistics.success(4, 5000, timing, 3_000_000)
    statistics.first_response(3_000_000)
    statistics.failure(FailureReason.REJECTED, 10)
    return statistics


def page(*models: ModelStatistics, **switches: Any) -> str:
    made = Page()
    write_models(made, models, MetricsConfig(**switches))
    return made.text()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        # The parser adds _total to the names of counters.
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_have_triton_s_names_without_a_suffix() -> None:
    text = page(model())
    for name in NV_COUNTERS:
        assert f"# TYPE {name} counter\n" in text
        assert f"\n{name}{{" in text
    assert 'nv_inference_count{model="m",version="3"} 4\n' in text
    assert 'nv_inference_request_duration_us{model="m",version="3"} 3000\n' in text
    assert 'nv_inference_compute_infer_duration_us{model="m",version="3"} 2000\n' in text


def test_every_failure_reason_is_there_from_the_start() -> None:
    text = page(ModelStatistics("m", 1))
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        label = f'{{model="m",reason="{reason}",version="1"}} 0\n'
        assert f"nv_inference_request_failure{label}" in text


def test_labels_are_in_the_order_of_their_names_as_scripts_look_for_them() -> None:
    """`le` and `quantile` last, whatever they are."""
    made = Page()
    labels = {"version": "1", "le": "1", "quantile": "0.5", "model": "m", "zone": "z"}
    made.family("x", "gauge", "X.", [("x", labels, 1.0)])
    assert 'x{model="m",version="1",zone="z",le="1",quantile="0.5"} 1\n' in made.text()


def test_histograms_are_cumulative_and_in_seconds() -> None:
    found = samples(page(model()))
    labels = (("model", "m"), ("version", "3"))
    name = "trivet_inference_compute_infer_duration_seconds"
    assert found[f"{name}_count", labels] == 1
    assert found[f"{name}_sum", labels] == pytest.approx(0.002)
    assert found[f"{name}_bucket", (("le", "0.001"), *labels)] == 0
    assert found[f"{name}_bucket", (("le", "0.0025"), *labels)] == 1
    assert found[f"{name}_bucket", (("le", "+Inf"), *labels)] == 1
    assert found["trivet_inference_batch_size_sum", labels] == 4
    first = "nv_inference_first_response_histogram_ms_bucket"
    assert found[first, (("le", "100"), *labels)] == 1


def test_a_model_that_nobody_has_asked_has_no_times() -> None:
    """A hundred of them would else fill nine tenths of the page with zeros."""
    text = page(*(ModelStatistics(f"model_{number:02}", 1) for number in range(100)))
    assert "_bucket" not in text
    assert "_duration_us" not in text
    assert len(text.splitlines()) <= 1250  # 1,500 with processes, the machine and our own process
    assert len(text) <= 85_000


def test_labels_that_the_page_before_had_are_written_alike() -> None:
    first = Page()
    write_models(first, [model()], MetricsConfig())
    second = Page(known=first.written)
    write_models(second, [model()], MetricsConfig())
    assert second.text() == first.text()


def test_a_model_that_has_computed_says_that_it_copied_nothing() -> None:
    assert "trivet_tensor_copied_bytes_total" not in page(ModelStatistics("m", 3))
    text = page(model())
    assert 'trivet_tensor_copied_bytes_total{kind="gather",model="m",version="3"} 0' in text
    assert 'trivet_host_synchronisations_total{model="m",version="3"} 0' in text


def test_openmetrics_has_the_same_series_under_the_same_names() -> None:
    """Prometheus asks for this format first: its series must be those that dashboards know."""
    seen = model()
    seen.copied_bytes[CopyKind.GATHER] = 5
    made = Page(Format.OPENMETRICS)
    write_models(made, [seen], MetricsConfig())
    write_process(made)
    text = made.text()
    families = {family.name: family for family in read_open_metrics(text)}  # type: ignore[no-untyped-call]
    assert families["nv_inference_count"].type == "unknown"
    assert families["trivet_tensor_copied_bytes"].type == "counter"
    names = {sample.name for family in families.values() for sample in family.samples}
    plain = Page()
    write_models(plain, [seen], MetricsConfig())
    write_process(plain)
    assert names == {line.partition("{")[0].partition(" ")[0] for line in lines_of(plain.text())}
    assert '_bucket{model="m",version="3",le="1.0"} ' in text
    assert text.endswith("# EOF\n")


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_switches_leave_families_out() -> None:
    assert "_duration_us" not in page(model(), counter_latencies=False)
    assert "histogram" not in page(model(), histogram_latencies=False)


def test_metric_tags_are_labels_with_an_underscore() -> None:
    tagged = model()
    tagged.tags = {"team": 'a"b\\c\nd'}
    text = page(tagged)
    assert r'nv_inference_count{_team="a\"b\\c\nd",model="m",version="3"} 4' in text
    assert samples(text)


@pytest.mark.parametrize("text", ["quantile_latencies=true", "counter_latencies=maybe", "x"])
def test_an_unknown_switch_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidConfig, match="known are counter_latencies"):
        MetricsConfig.parse([text])


def test_summaries_have_triton_s_names_and_the_quantiles_that_are_asked_for() -> None:
    summed = ModelStatistics("m", 3, has_summaries=True)
    for _ in range(3):
        summed.success(1, 5000, BatchTiming(1000, 2_000_000, 3000), 3_000_000)
    config = MetricsConfig.parse(
        ["summary_latencies=true", "summary_quantiles=0.5:0.05,0.99:0.001"]
    )
    made = Page()
    write_models(made, [summed], config)
    found = samples(made.text())
    labels = (("model", "m"), ("version", "3"))
    for stage, value_us in (("request", 3000), ("queue", 5), ("compute_infer", 2000)):
        name = f"nv_inference_{stage}_summary_us"
        assert f"# TYPE {name} summary\n" in made.text()
        assert found[f"{name}_count", labels] == 3
        assert found[f"{name}_sum", labels] == 3 * value_us
        for quantile in ("0.5", "0.99"):
            key = tuple(sorted((*labels, ("quantile", quantile))))
            assert found[name, key] == pytest.approx(value_us, rel=0.01)
    assert "nv_cache" not in made.text()
    assert "summary" not in page(summed)


def test_a_cached_model_has_summaries_of_hits_and_misses() -> None:
    """A miss is one value: what looking took and what keeping the answer did, if it was kept."""
    cached = ModelStatistics("m", 3, has_summaries=True)
    cached.is_cached = True
    for _ in range(3):
        cached.cache_hit(5000)
    for stored_ns in (12_000, 0):
        cached.cache_missed(8000)
        cached.cache_miss_ended(8000, stored_ns)
    made = Page()
    config = MetricsConfig.parse(["summary_latencies=true", "summary_quantiles=0.5:0.05,0.99:0.1"])
    write_models(made, [cached], config)
    found = samples(made.text())
    labels = (("model", "m"), ("version", "3"))
    for kind, count, total_us, quantiles_us in (("hit", 3, 15, (5, 5)), ("miss", 2, 28, (8, 20))):
        name = f"nv_cache_{kind}_summary_per_model"
        assert f"# TYPE {name} summary\n" in made.text()
        assert found[f"{name}_count", labels] == count
        assert found[f"{name}_sum", labels] == total_us
        for quantile, value_us in zip(("0.5", "0.99"), quantiles_us, strict=True):
            key = tuple(sorted((*labels, ("quantile", quantile))))
            assert found[name, key] == pytest.approx(value_us, rel=0.01)
    assert found["nv_cache_miss_duration_per_model", labels] == 28
    assert "summary" not in page(cached)


@pytest.mark.parametrize("text", ["0.5:0.1,1:0.1", "a", "", "0.5:2", "0.5:x"])
def test_a_wrong_quantile_is_named(text: str) -> None:
    with pytest.raises(InvalidConfig, match="is not QUANTILE:ERROR"):
        MetricsConfig.parse([f"summary_quantiles={text}"])


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    folder = write_identity(repository, "m", more='metric_tags { key: "team" value: "blue" }')
    assert folder.exists()
    write_identity(repository, "apart", more=APART)
    return serve(repository, "--metrics-config=summary_latencies=true")


def test_the_page_of_a_running_server_is_valid_and_has_the_machine(server: RunningServer) -> None:
    found = samples(server.metrics())
    assert found["nv_cpu_memory_total_bytes", ()] > 0
    labels = (("_team", "blue"), ("model", "m"), ("version", "1"))
    assert found["nv_inference_count", labels] == 0
    assert found["nv_model_load_duration_secs", labels] > 0
    assert found["nv_inference_pending_request_count", labels] == 0
    assert found["nv_inference_request_summary_us_count", labels] == 0


def test_the_page_is_written_as_the_scraper_wants_it(server: RunningServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.metrics_port)
    # What Prometheus 3 sends.
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    )
    connection.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.getheader("Content-Encoding") == "gzip"
    assert answer.getheader("Content-Type", "").startswith("application/openmetrics-text")
    packed = answer.read()
    text = gzip.decompress(packed).decode()
    assert len(packed) < len(text) / 3
    assert list(read_open_metrics(text))  # type: ignore[no-untyped-call]
    connection.request("GET", "/metrics")
    plain = connection.getresponse()
    assert plain.getheader("Content-Encoding") is None
    assert plain.getheader("Content-Type", "").startswith("text/plain")
    found = samples(plain.read().decode())
    connection.close()
    assert found["process_resident_memory_bytes", ()] > 1e7
    assert found["process_open_fds", ()] > 5
    assert found["process_start_time_seconds", ()] <= time.time()


def test_statistics_tell_the_memory_of_a_model_s_own_process(server: RunningServer) -> None:
    with httpclient.InferenceServerClient(server.http) as client:
        usage = {
            each["name"]: each.get("memory_usage", [])
            for each in client.get_inference_statistics()["model_stats"]
        }
    (process,) = usage["apart"]
    assert (process["type"], process["id"]) == ("CPU", 0)
    # Python and numpy alone have more than that.
    assert int(process["byte_size"]) > 10_000_000
    assert usage["m"] == []


def test_the_machine_is_shown_as_far_as_the_options_say() -> None:
    made = Page()
    Machine(1, shows_cpu=False).write(made)
    assert "nv_cpu" not in made.text()
    assert "trivet_event_loop_lateness_seconds" in made.text()
    full = Page()
    Machine(1).write(full)
    assert full.text().count("# TYPE nv_cpu_") == 3


def test_unknown_models_make_no_series(server: RunningServer) -> None:
    before = len(samples(server.metrics()))
    given = httpclient.InferInput("INPUT0", [1, 16], "FP32")
    given.set_data_from_numpy(np.zeros((1, 16), np.float32))
    with httpclient.InferenceServerClient(server.http) as client:
        for number in range(200):
            with pytest.raises(Exception, match="not found"):
                client.infer(f"unknown{number}", [given])
    assert len(samples(server.metrics())) == before

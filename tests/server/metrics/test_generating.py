"""What the metrics page tells of a language model, parsed as Prometheus parses it."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from llm_site import SMALL_LLM, Call, caller, write_small_llm
from patience import patience
from prometheus_client.parser import text_string_to_metric_families
from serving import RunningServer, write_identity

LABELS = {"model_name": "small", "engine": "0"}
PROMPT = "Once upon a time there was a small trivet that carried hot dishes. " * 4
COUNTERS = (
    "vllm:prompt_tokens", "vllm:prompt_tokens_cached", "vllm:prompt_tokens_by_source",
    "vllm:generation_tokens",
    "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions",
    "vllm:request_success", "vllm:admission_rejections", "tgi_request_count",
    "tgi_request_success", "tgi_request_failure", "tgi_batch_inference_count",
    "tgi_batch_inference_success", "tgi_batch_inference_failure",
)  # fmt: skip
GAUGES = (
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc", "vllm:cache_config_info", "tgi_queue_size",
    "tgi_batch_current_size", "tgi_batch_current_max_tokens",
    "vllm:num_requests_waiting_by_reason",
)  # fmt: skip
HISTOGRAMS = (
    "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
    "vllm:time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
    "vllm:request_inference_time_seconds", "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens", "vllm:request_params_max_tokens", "tgi_request_duration",
    "tgi_request_validation_duration", "vllm:request_prefill_kv_computed_tokens",
    "tgi_request_queue_duration", "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration", "tgi_request_input_length",
    "tgi_request_generated_tokens", "tgi_request_max_new_tokens",
    "vllm:request_params_n", "vllm:request_max_num_generation_tokens",
    "vllm:request_num_preemptions", "vllm:iteration_tokens_total", "tgi_batch_next_size",
    "tgi_batch_inference_duration", "tgi_batch_forward_duration", "tgi_batch_decode_duration",
    "tgi_batch_concat_duration", "tgi_batch_filter_duration",
)  # fmt: skip
SCARCE = """
backend: "llm"
parameters { key: "dtype" value { string_value: "bfloat16" } }
parameters { key: "kv_cache_bytes" value { string_value: "73728" } }
parameters { key: "max_model_len" value { string_value: "128" } }
"""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., RunningServer]
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    write_small_llm(repository, "small", SMALL_LLM)
    write_identity(repository, "identity")
    return serve(repository)


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)


class Page:
    """One scrape."""

    def __init__(self, server: RunningServer) -> None:
        self.text = server.metrics()
        self.families = {f.name: f for f in text_string_to_metric_families(self.text)}
        self._samples: Samples = {
            # The parser adds _total to the names of counters that lack it.
            (s.name.removesuffix("_total"), frozenset(s.labels.items())): s.value
            for f in self.families.values()
            for s in f.samples
        }

    def value(self, name: str, **labels: str) -> float:
        given = LABELS if name.startswith("vllm:") else {"model_name": "small"}
        return self._samples[name, frozenset({**given, **labels}.items())]


def complete(call: Call, **fields: object) -> int:
    body = {"model": "small", "prompt": PROMPT, "max_tokens": 5, "temperature": 0, **fields}
    return call("/v1/completions", body).status


def settled(server: RunningServer, name: str, expected: float, **labels: str) -> Page:
    """The page once the engine has told of its last step."""
    deadline_s = time.monotonic() + patience()
    while (page := Page(server)).value(name, **labels) != expected:
        assert time.monotonic() < deadline_s, f"{name} is {page.value(name, **labels)}"
    return page


def test_every_metric_is_there_with_its_type_before_any_request(server: RunningServer) -> None:
    families = Page(server).families
    for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge"), (HISTOGRAMS, "histogram")):
        assert {name: families[name].type for name in names} == dict.fromkeys(names, kind)


def test_vllm_s_counters_end_in_total(server: RunningServer) -> None:
    text = server.metrics()
    for name in COUNTERS:
        suffix = "_total" if name.startswith("vllm:") else ""
        assert f"# TYPE {name}{suffix} counter\n" in text


def test_models_that_generate_no_text_have_none_of_it(server: RunningServer) -> None:
    assert 'model_name="identity"' not in server.metrics()


def test_request_is_counted_and_timed(call: Call, server: RunningServer) -> None:
    before = Page(server)
    assert complete(call) == 200
    after = Page(server)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("vllm:generation_tokens") == 5
    assert grown("vllm:prompt_tokens") > 40
    assert grown("vllm:request_success", finished_reason="length") == 1
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:inter_token_latency_seconds_count") == 4
    assert grown("vllm:request_generation_tokens_sum") == 5
    assert grown("vllm:request_params_max_tokens_sum") == 5
    assert grown("tgi_request_success") == grown("tgi_request_count") == 1
    parts = [grown(f"vllm:request_{part}_time_seconds_sum") for part in ("prefill", "decode")]
    queue_s = grown("vllm:request_queue_time_seconds_sum")
    e2e_s = grown("vllm:e2e_request_latency_seconds_sum")
    assert sum(parts) + queue_s == pytest.approx(e2e_s, abs=1e-3)
    assert sum(parts) == pytest.approx(grown("vllm:request_inference_time_seconds_sum"), abs=1e-3)


def test_choices_of_a_prompt_are_one_request_and_steps_tell_what_they_compute(
    call: Call, server: RunningServer
) -> None:
    before = Page(server)
    # A prompt that no other test has left in the cache.
    wishes = {"prompt": "Three go out. " * 9, "n": 3, "temperature": 1, "ignore_eos": True}
    assert complete(call, max_tokens=4, **wishes) == 200
    after = Page(server)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("vllm:request_params_n_count") == 1
    assert grown("vllm:request_params_n_sum") == 3
    assert grown("vllm:request_max_num_generation_tokens_sum") == 4
    assert grown("vllm:request_generation_tokens_sum") == 12
    assert grown("vllm:request_num_preemptions_count") == 3
    # What was not in the cache, and each new token but the last ones, which nothing follows.
    computed = grown("vllm:request_prefill_kv_computed_tokens_sum") + 3 * 3
    assert grown("vllm:iteration_tokens_total_sum") == computed
    assert grown("tgi_batch_next_size_sum") == 3
    assert 1 <= grown("tgi_batch_next_size_count") <= 3 < grown("vllm:iteration_tokens_total_count")
    steps = {
        kind: grown("tgi_batch_inference_duration_count", method=kind)
        for kind in ("prefill", "decode")
    }
    assert sum(steps.values()) == grown("vllm:iteration_tokens_total_count")
    assert steps["prefill"] >= 1
    assert steps["decode"] >= 3
    for kind, count in steps.items():
        assert grown("tgi_batch_inference_success", method=kind) == count
    planned = ("tgi_batch_concat_duration_count", "tgi_batch_filter_duration_count")
    assert sum(grown(name, method=kind) for name in planned for kind in steps) == sum(
        steps.values()
    )
    computing_s = sum(grown("tgi_batch_inference_duration_sum", method=kind) for kind in steps)
    assert 0 < computing_s < grown("vllm:e2e_request_latency_seconds_sum")


@pytest.mark.slow
def test_a_request_that_was_set_back_tells_how_often(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    # 17 blocks of 16 tokens: two outputs of 128 fit, the third one has to wait for them.
    write_small_llm(tmp_path, "small", SCARCE)
    server = serve(tmp_path)
    assert complete(caller(server), prompt="Once", n=3, ignore_eos=True, max_tokens=120) == 200
    page = settled(server, "vllm:num_requests_running", 0)
    set_back = page.value("vllm:request_num_preemptions_sum")
    assert set_back == page.value("vllm:num_preemptions") >= 1
    never = page.value("vllm:request_num_preemptions_bucket", le="0")
    assert 1 <= never < page.value("vllm:request_num_preemptions_count") == 3


def test_tensor_form_is_counted_alike(call: Call, server: RunningServer) -> None:
    before = Page(server).value("vllm:generation_tokens")
    body = {"text_input": "Once", "sampling_parameters": json.dumps({"max_tokens": 3})}
    assert call("/v2/models/small/generate", body).status == 200
    assert Page(server).value("vllm:generation_tokens") == before + 3


def test_prefix_that_was_seen_before_is_a_hit(call: Call, server: RunningServer) -> None:
    prompt = "Hits are counted in tokens. " * 12
    assert complete(call, prompt=prompt) == 200
    before = Page(server)
    assert complete(call, prompt=prompt) == 200
    told = Page(server)
    num_cached = told.value("vllm:prompt_tokens_cached") - before.value("vllm:prompt_tokens_cached")
    cached = {"source": "local_cache_hit"}
    by_source = "vllm:prompt_tokens_by_source"
    assert told.value(by_source, **cached) - before.value(by_source, **cached) == num_cached
    assert num_cached >= 32
    assert num_cached % 16 == 0
    hits = before.value("vllm:prefix_cache_hits") + num_cached
    page = settled(server, "vllm:prefix_cache_hits", hits)
    assert page.value("vllm:prefix_cache_queries") > page.value("vllm:prefix_cache_hits")


def test_running_request_is_seen_while_it_runs(call: Call, server: RunningServer) -> None:
    body = {"inputs": "Once", "parameters": {"max_new_tokens": 4000}}
    request = urllib.request.Request(
        f"http://{server.http}/generate_stream", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=patience()) as stream:
        stream.read(10)
        page = settled(server, "vllm:num_requests_running", 1)
        assert 0 < page.value("vllm:kv_cache_usage_perc") < 1
        assert page.value("tgi_batch_current_size") == 1
        assert page.value("tgi_batch_current_max_tokens") >= 16
        aborted = page.value("vllm:request_success", finished_reason="abort")
    settled(server, "vllm:request_success", aborted + 1, finished_reason="abort")
    page = settled(server, "vllm:num_requests_running", 0)
    assert page.value("vllm:kv_cache_usage_perc") == 0


def test_refused_request_is_a_failure_and_no_answer(call: Call, server: RunningServer) -> None:
    before = Page(server)
    assert complete(call, max_tokens=10**6) == 400
    after = Page(server)
    for name, labels, grown in (
        ("tgi_request_failure", {"err": "validation"}, 1),
        ("tgi_request_success", {}, 0),
        ("vllm:time_to_first_token_seconds_count", {}, 0),
    ):
        assert after.value(name, **labels) - before.value(name, **labels) == grown


def test_cache_config_says_what_gateways_read(server: RunningServer) -> None:
    (sample,) = Page(server).families["vllm:cache_config_info"].samples
    assert sample.value == 1
    assert sample.labels["block_size"] == "16"
    # 512 MiB of keys and values, as the model's config says.
    assert int(sample.labels["num_gpu_blocks"]) > 500
    assert sample.labels["enable_prefix_caching"] == "True"


def test_buckets_are_vllm_s_and_finer_for_small_models(server: RunningServer) -> None:
    def bounds(name: str) -> list[str]:
        samples = Page(server).families[name].samples
        return [s.labels["le"] for s in samples if s.name.endswith("_bucket")]

    first = bounds("vllm:time_to_first_token_seconds")
    assert first[:4] == ["0.001", "0.005", "0.01", "0.02"]
    assert first[-2:] == ["2560", "+Inf"]
    assert bounds("vllm:inter_token_latency_seconds")[:5] == [
        "0.001", "0.0025", "0.005", "0.01", "0.025",
    ]  # fmt: skip
    assert bounds("vllm:request_prompt_tokens")[-2:] == ["5000", "+Inf"]

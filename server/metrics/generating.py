"""The metrics of models that generate text, under vLLM's and TGI's names: their dashboards work.

Both sets tell the same counters. vLLM's labels are `model_name` and `engine`; TGI's names have
`model_name` here, for one server has several models. Where several versions of one are loaded,
`version` tells them apart.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from trivet.backends.api import GenerateStatistics, Histogram, Measured
from trivet.server.core import Served
from trivet.server.metrics.speculating import write_speculation
from trivet.server.metrics.text import Labels, Page, buckets

Models = Mapping[Served, Measured]
_ENGINE = "0"

# Metric, number of the engine, help.
_GAUGES = (
    ("vllm:num_requests_running", "running", "Requests in the running batch"),
    ("vllm:num_requests_waiting", "waiting", "Requests waiting to be processed"),
    ("vllm:kv_cache_usage_perc", "kv_usage", "Share of the cache's blocks in use, 0 to 1"),
    ("vllm:gpu_cache_usage_perc", "kv_usage", "Old name of vllm:kv_cache_usage_perc"),
    ("tgi_batch_current_size", "running", "Requests in the running batch"),
    ("tgi_queue_size", "waiting", "Requests waiting to be processed"),
)
_ENGINE_COUNTERS = (
    ("vllm:prefix_cache_queries_total", "prompt_tokens", "Prompt tokens looked up in the cache"),
    ("vllm:prefix_cache_hits_total", "cached_tokens", "Prompt tokens found in the cache"),
    ("vllm:gpu_prefix_cache_queries_total", "prompt_tokens", "Old name of prefix_cache_queries"),
    ("vllm:gpu_prefix_cache_hits_total", "cached_tokens", "Old name of prefix_cache_hits"),
    ("vllm:num_preemptions_total", "preemptions", "Times that a running request was set back"),
)
_COUNTERS: tuple[tuple[str, Callable[[GenerateStatistics], int], str], ...] = (
    ("vllm:prompt_tokens_total", lambda s: s.num_prompt_tokens, "Prompt tokens processed"),
    (
        "vllm:prompt_tokens_cached_total",
        lambda s: s.num_cached_tokens,
        "Prompt tokens that came from the cache",
    ),
    ("vllm:generation_tokens_total", lambda s: s.num_generated_tokens, "Tokens generated"),
    ("tgi_request_count", lambda s: s.num_requests, "Requests received"),
    (
        "tgi_request_success",
        lambda s: s.finished["stop"] + s.finished["length"],
        "Requests answered",
    ),
)
_HISTOGRAMS: tuple[tuple[str, Callable[[GenerateStatistics], Histogram], str], ...] = (
    ("vllm:time_to_first_token_seconds", lambda s: s.first_token_s, "Until the first token"),
    ("vllm:inter_token_latency_seconds", lambda s: s.between_tokens_s, "Between two tokens"),
    (
        "vllm:time_per_output_token_seconds",
        lambda s: s.between_tokens_s,
        "Old name of vllm:inter_token_latency_seconds",
    ),
    (
        "vllm:request_time_per_output_token_seconds",
        lambda s: s.per_token_s,
        "A request's mean time for each token after the first",
    ),
    ("vllm:e2e_request_latency_seconds", lambda s: s.request_s, "From request to last token"),
    ("vllm:request_queue_time_seconds", lambda s: s.queue_s, "Waiting before the first step"),
    ("vllm:request_prefill_time_seconds", lambda s: s.prefill_s, "From first step to first token"),
    ("vllm:request_decode_time_seconds", lambda s: s.decode_s, "From first to last token"),
    ("vllm:request_inference_time_seconds", lambda s: s.inference_s, "From first step to the end"),
    ("vllm:request_prompt_tokens", lambda s: s.prompt_tokens, "Prompt tokens of a request"),
    (
        "vllm:request_prefill_kv_computed_tokens",
        lambda s: s.computed_tokens,
        "Prompt tokens of a request that were not in the cache",
    ),
    ("vllm:request_generation_tokens", lambda s: s.generated_tokens, "Tokens of an output"),
    ("vllm:request_params_max_tokens", lambda s: s.max_tokens, "max_tokens of requests that say"),
    (
        "vllm:request_max_num_generation_tokens",
        lambda s: s.longest_tokens,
        "Tokens of the longest of a request's outputs",
    ),
    ("vllm:request_params_n", lambda s: s.choices, "Outputs that a request asks for"),
    (
        "vllm:request_num_preemptions",
        lambda s: s.preemptions,
        "Times that a request was set back",
    ),
    ("vllm:iteration_tokens_total", lambda s: s.step_tokens, "Tokens computed in a step"),
    ("tgi_batch_next_size", lambda s: s.step_starts, "Requests that a step takes from the queue"),
    ("tgi_request_duration", lambda s: s.request_s, "From request to last token, in seconds"),
    (
        "tgi_request_validation_duration",
        lambda s: s.prepare_s,
        "Writing and tokenising the prompt, in seconds",
    ),
    ("tgi_request_queue_duration", lambda s: s.queue_s, "Waiting, in seconds"),
    ("tgi_request_inference_duration", lambda s: s.inference_s, "Computing, in seconds"),
    (
        "tgi_request_mean_time_per_token_duration",
        lambda s: s.per_token_s,
        "Mean time for each token after the first, in seconds",
    ),
    ("tgi_request_input_length", lambda s: s.prompt_tokens, "Prompt tokens of a request"),
    ("tgi_request_generated_tokens", lambda s: s.generated_tokens, "Tokens of an output"),
    ("tgi_request_max_new_tokens", lambda s: s.max_tokens, "max_new_tokens of requests that say"),
)


def num_steps(statistics: GenerateStatistics) -> dict[str, int]:
    """Steps computed, by the kind that the label `method` names."""
    return {kind: sum(histogram.counts) for kind, histogram in statistics.step_s.items()}


# Metric, label, counts by the label's value, help.
_LABELLED: tuple[tuple[str, str, Callable[[GenerateStatistics], Mapping[str, int]], str], ...] = (
    (
        "vllm:request_success_total",
        "finished_reason",
        lambda s: s.finished,
        "Requests ended, by reason",
    ),
    (
        "vllm:admission_rejections_total",
        "reason",
        lambda s: s.rejected,
        "Requests not taken, by reason",
    ),
    ("tgi_batch_inference_count", "method", num_steps, "Steps begun"),
    (
        "tgi_batch_inference_success",
        "method",
        lambda s: {kind: count - s.failed_steps[kind] for kind, count in num_steps(s).items()},
        "Steps that came to their end",
    ),
    ("tgi_batch_inference_failure", "method", lambda s: s.failed_steps, "Steps that failed"),
    (
        "vllm:prompt_tokens_by_source_total",
        "source",
        lambda s: {
            "local_compute": s.num_prompt_tokens - s.num_cached_tokens,
            "local_cache_hit": s.num_cached_tokens,
        },
        "Prompt tokens, by where their keys and values came from",
    ),
    ("tgi_request_failure", "err", lambda s: s.failed, "Requests that failed, by kind of error"),
)
# Metric, histograms by the method that TGI's label names, help.
_PHASES: tuple[tuple[str, Callable[[GenerateStatistics], Mapping[str, Histogram]], str], ...] = (
    ("tgi_batch_inference_duration", lambda s: s.step_s, "Computing a step, in seconds"),
    ("tgi_batch_forward_duration", lambda s: s.forward_s, "A step's part in the model, in seconds"),
    (
        "tgi_batch_decode_duration",
        lambda s: s.choosing_s,
        "A step's part behind the model: tokens drawn and told, in seconds",
    ),
    (
        "tgi_batch_concat_duration",
        lambda s: s.filling_s,
        "Planning a step that takes in requests, in seconds",
    ),
    (
        "tgi_batch_filter_duration",
        lambda s: s.planning_s,
        "Planning a step that goes on without those that ended, in seconds",
    ),
)


def write_generators(page: Page, models: Models) -> None:
    """Everything about models that generate text; nothing where there are none."""
    for name, key, text in _GAUGES:
        page.family(name, "gauge", text, _engine_samples(name, key, models))
    for name, key, text in _ENGINE_COUNTERS:
        page.family(name, "counter", text, _engine_samples(name, key, models))
    for name, count_of, text in _COUNTERS:
        samples = [(name, labels, count_of(s)) for labels, s in _statistics(name, models)]
        page.family(name, "counter", text, samples)
    for name, label, counts_of, text in _LABELLED:
        page.family(name, "counter", text, _by_label(name, label, counts_of, models))
    for name, histogram_of, text in _HISTOGRAMS:
        histograms = [(labels, histogram_of(s)) for labels, s in _statistics(name, models)]
        page.family(name, "histogram", text, buckets(name, histograms))
    for name, by_method, text in _PHASES:
        steps = [
            ({**labels, "method": method}, histogram)
            for labels, statistics in _statistics(name, models)
            for method, histogram in by_method(statistics).items()
        ]
        page.family(name, "histogram", text, buckets(name, steps))
    _write_cache(page, models)
    _write_adapters(page, models)
    write_speculation(page, models)


def _write_adapters(page: Page, models: Models) -> None:
    """vLLM's: which adapters are asked for is in the labels, and the time in the value."""
    name, now_s = "vllm:lora_requests_info", time.time()
    rows = [
        (
            name,
            {
                **_labels(name, model),
                "max_lora": str(measured.statistics.max_adapters),
                "running_lora_adapters": ",".join(sorted(measured.statistics.running_adapters)),
                "waiting_lora_adapters": ",".join(sorted(measured.statistics.waiting_adapters)),
            },
            now_s,
        )
        for model, measured in models.items()
        if measured.statistics.max_adapters
    ]
    page.family(name, "gauge", "Adapters that requests ask for", rows)


def _write_cache(page: Page, models: Models) -> None:
    info, tokens = "vllm:cache_config_info", "tgi_batch_current_max_tokens"
    rows = [
        (
            info,
            {
                **_labels(info, name),
                **model.statistics.cache,
                # The name that gateways read, on a CPU too.
                "num_gpu_blocks": str(int(model.stats.get("num_blocks", 0))),
            },
            1.0,
        )
        for name, model in models.items()
    ]
    reasons = "vllm:num_requests_waiting_by_reason"
    # Nothing but room keeps a request waiting here.
    waiting = [
        (name, {**labels, "reason": "capacity"}, value)
        for name, labels, value in _engine_samples(reasons, "waiting", models)
    ]
    page.family(reasons, "gauge", "Requests waiting to be processed, by reason", waiting)
    page.family(info, "gauge", "The cache of keys and values", rows)
    page.family(
        tokens,
        "gauge",
        "Tokens of the cache that running requests hold",
        [(tokens, _labels(tokens, name), _held_tokens(model)) for name, model in models.items()],
    )


def _held_tokens(model: Measured) -> float:
    stats = model.stats
    blocks = stats.get("kv_usage", 0.0) * stats.get("num_blocks", 0.0)
    return round(blocks) * int(model.statistics.cache["block_size"])


def _labels(metric: str, model: Served) -> Labels:
    labels = model.labels
    return labels if metric.startswith("tgi_") else {**labels, "engine": _ENGINE}


def _statistics(metric: str, models: Models) -> Iterator[tuple[Labels, GenerateStatistics]]:
    for name, model in models.items():
        yield _labels(metric, name), model.statistics


def _engine_samples(metric: str, key: str, models: Models) -> Iterator[tuple[str, Labels, float]]:
    for name, model in models.items():
        yield metric, _labels(metric, name), model.stats.get(key, 0.0)


def _by_label(
    metric: str,
    label: str,
    counts_of: Callable[[GenerateStatistics], Mapping[str, int]],
    models: Models,
) -> Iterator[tuple[str, Labels, float]]:
    for labels, statistics in _statistics(metric, models):
        for value, count in counts_of(statistics).items():
            yield metric, {**labels, label: value}, count

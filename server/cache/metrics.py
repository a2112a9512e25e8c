"""What the metrics page says about the response cache, under Triton's names."""

from collections.abc import Sequence

from trivet.server.cache.entry import Cache
from trivet.server.cache.local import LocalCache
from trivet.server.metrics.text import Labels, Page, summarised
from trivet.server.scheduling.statistics import ModelStatistics


def write_cached_models(page: Page, labelled: Sequence[tuple[Labels, ModelStatistics]]) -> None:
    """Hits and misses of the models that the cache stands before."""
    cached = [(labels, model) for labels, model in labelled if model.is_cached]
    for name, help_text, values in (
        ("num_hits", "Number of cache hits", [m.cache_hits.count for _, m in cached]),
        ("num_misses", "Number of cache misses", [m.cache_misses.count for _, m in cached]),
        (
            "hit_duration",
            "Total cache hit duration, in microseconds",
            [m.cache_hits.total_ns // 1000 for _, m in cached],
        ),
        (
            "miss_duration",
            "Total cache miss (lookup and insert) duration, in microseconds",
            [m.cache_misses.total_ns // 1000 for _, m in cached],
        ),
    ):
        metric = f"nv_cache_{name}_per_model"
        samples = [
            (metric, labels, value) for (labels, _), value in zip(cached, values, strict=True)
        ]
        page.family(metric, "counter", f"{help_text} per model", samples)


def write_cache_summaries(
    page: Page, labelled: Sequence[tuple[Labels, ModelStatistics]], quantiles: Sequence[float]
) -> None:
    """Quantiles of the same."""
    cached = [
        (labels, model.cache_summaries)
        for labels, model in labelled
        if model.is_cached and model.cache_summaries is not None
    ]
    for index, kind in enumerate(("hit", "miss")):
        name = f"nv_cache_{kind}_summary_per_model"
        help_text = f"Summary of cache {kind} duration per model in microseconds"
        summaries = [(labels, both[index]) for labels, both in cached]
        page.family(name, "summary", help_text, summarised(name, summaries, quantiles))


def write_cache(page: Page, cache: Cache | None) -> None:
    """The local cache as a whole."""
    if not isinstance(cache, LocalCache):
        return
    statistics = cache.statistics
    for name, help_text, value in (
        ("util", "Cache utilization [0.0 - 1.0]", cache.utilization),
        ("num_entries", "Number of responses stored in response cache", len(cache)),
        ("num_lookups", "Number of cache lookups", statistics.num_lookups),
        ("num_hits", "Number of cache hits", statistics.num_hits),
        ("num_misses", "Number of cache misses", statistics.num_lookups - statistics.num_hits),
        ("num_evictions", "Number of cache evictions", statistics.num_evictions),
        ("lookup_duration", "Total cache lookup duration", statistics.lookup_ns // 1000),
        ("insertion_duration", "Total cache insertion duration", statistics.insertion_ns // 1000),
    ):
        metric = f"nv_cache_{name}"
        unit = ", in microseconds" if name.endswith("duration") else ""
        page.family(metric, "gauge", help_text + unit, [(metric, {}, value)])

"""The metrics of guessed tokens, under vLLM's and TGI's names."""

from collections.abc import Iterator, Mapping

from trivet.backends.api import Measured
from trivet.server.core import Served
from trivet.server.metrics.text import Labels, Page, Sample

_COUNTERS = (
    ("vllm:spec_decode_num_drafts_total", "drafts", "Times that tokens of a request were guessed"),
    ("vllm:spec_decode_num_draft_tokens_total", "draft_tokens", "Tokens that were guessed"),
    ("vllm:spec_decode_num_accepted_tokens_total", "accepted_tokens", "Guesses that were right"),
)
_PLACES = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
_SKIPPED = "tgi_request_skipped_tokens"
_AT = "accepted_at_{}"


def write_speculation(page: Page, models: Mapping[Served, Measured]) -> None:
    """Of the models whose tokens are guessed; nothing where there are none."""
    guessing = {name: model for name, model in models.items() if "drafts" in model.stats}
    for metric, key, text in _COUNTERS:
        samples = [(metric, _labels(name), model.stats[key]) for name, model in guessing.items()]
        page.family(metric, "counter", text, samples)
    places = (
        (_PLACES, {**_labels(name), "position": str(place)}, count)
        for name, model in guessing.items()
        for place, count in enumerate(_accepted(model))
    )
    page.family(_PLACES, "counter", "Guesses that were right, by their place", places)
    skipped = (sample for name, model in guessing.items() for sample in _skipped(name, model))
    page.family(_SKIPPED, "histogram", "Tokens of a step beside the one that it computed", skipped)


def _labels(model: Served) -> Labels:
    return {**model.labels, "engine": "0"}


def _accepted(model: Measured) -> list[float]:
    """By place, as far as guesses go."""
    places = sum(key.startswith(_AT.format("")) for key in model.stats)
    return [model.stats[_AT.format(place)] for place in range(places)]


def _skipped(name: Served, model: Measured) -> Iterator[Sample]:
    """A histogram of the steps of requests by how many guesses each told."""
    labels = name.labels
    total = model.stats["accepted_tokens"]
    steps = max(model.statistics.num_generated_tokens - total, 0.0)
    for place, count in enumerate(_accepted(model)):
        yield f"{_SKIPPED}_bucket", {**labels, "le": str(float(place))}, max(steps - count, 0.0)
    yield f"{_SKIPPED}_bucket", {**labels, "le": "+Inf"}, steps
    yield f"{_SKIPPED}_sum", labels, total
    yield f"{_SKIPPED}_count", labels, steps

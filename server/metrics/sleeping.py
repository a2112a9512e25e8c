"""Metrics of models that may sleep: which do, what they would take, how often and how fast they
wake."""

from collections.abc import Iterable, Mapping

from trivet.backends.api import Measured, Sleeps
from trivet.server.core import Served
from trivet.server.metrics.text import Page, buckets, labels_of, observed
from trivet.server.models.sleeping.resident import Resident, Rest


def write_sleepers(page: Page, residents: Iterable[Resident]) -> None:
    """Of every loaded version that has memory to give back."""
    labelled = [(labels_of(each.model), each) for each in residents]
    asleep, memory = "trivet_model_asleep", "trivet_model_memory_bytes"
    wakes, failures = "trivet_model_wakes_total", "trivet_model_wake_failures_total"
    took = "trivet_model_wake_duration_seconds"
    page.family(
        asleep,
        "gauge",
        "Whether a loaded model sleeps: it has no memory, and wakes for a request",
        ((asleep, labels, float(each.rest is not Rest.AWAKE)) for labels, each in labelled),
    )
    page.family(
        memory,
        "gauge",
        "What a loaded model takes of host memory, or of a GPU's, while it is awake",
        (
            (memory, {**labels, "place": "host" if place is None else f"gpu_{place}"}, size)
            for labels, each in labelled
            for place, size in each.sizes.items()
            if size
        ),
    )
    page.family(
        wakes,
        "counter",
        "How often a model has woken since it was loaded",
        ((wakes, labels, each.num_wakes) for labels, each in labelled),
    )
    page.family(
        failures,
        "counter",
        "How often a model could not be woken since it was loaded",
        ((failures, labels, each.num_failures) for labels, each in labelled),
    )
    page.family(
        took,
        "histogram",
        "From the first request for a model that sleeps until it computes, in seconds",
        buckets(took, observed((labels, each.wakes_s) for labels, each in labelled)),
    )


def write_engine_sleep(page: Page, models: Mapping[Served, Measured]) -> None:
    """The same of models that generate text, by vLLM's name: one that sleeps keeps nothing."""
    name = "vllm:engine_sleep_state"
    page.family(
        name,
        "gauge",
        "Whether an engine is awake (1), and what was given up of one that is not",
        (
            (name, {**model.labels, "engine": "0", "sleep_state": state}, float(is_so))
            for model, engine in models.items()
            if isinstance(engine, Sleeps)
            for state, is_so in (
                ("awake", not engine.is_asleep),
                ("weights_offloaded", False),
                ("discard_all", engine.is_asleep),
            )
        ),
    )

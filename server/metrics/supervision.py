"""Metrics of models that can lose their process: are they ready, and how often did they die."""

from collections.abc import Iterable

from trivet.backends.api import Cause, Supervised
from trivet.server.metrics.text import Page, labels_of
from trivet.server.models.model import Model


def write_supervision(page: Page, models: Iterable[Model]) -> None:
    """Of every loaded version that has a process to lose, and of any other that cannot compute.
    Deaths are told of those that had one."""
    ready, deaths = "trivet_model_ready", "trivet_model_process_deaths_total"
    labelled = [(labels_of(model), model.executor) for model in models]
    page.family(
        ready,
        "gauge",
        "Whether a loaded model can compute now (0 while its process is being restarted)",
        (
            (ready, labels, float(is_ready))
            for labels, executor in labelled
            if not (is_ready := executor.is_ready()) or isinstance(executor, Supervised)
        ),
    )
    counted = (
        (labels, executor.deaths())
        for labels, executor in labelled
        if isinstance(executor, Supervised)
    )
    page.family(
        deaths,
        "counter",
        "Processes of a model that have died since it was loaded, by cause",
        (
            (deaths, {**labels, "cause": cause.value}, by_cause.get(cause, 0))
            for labels, by_cause in counted
            if any(by_cause.values())
            for cause in Cause
        ),
    )

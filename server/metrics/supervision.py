"""Metrics of models whose instances may be lost: are they ready, and how often did they die."""

from collections.abc import Iterable

from trivet.backends.api import Cause
from trivet.server.metrics.text import Page, labels_of
from trivet.server.models.model import Model


def write_supervision(page: Page, models: Iterable[Model]) -> None:
    """Of every loaded version that has instances, and of any other that cannot compute. Deaths are
    told of those that had one."""
    ready, deaths = "trivet_model_ready", "trivet_model_process_deaths_total"
    labelled = [(labels_of(model), model) for model in models]
    page.family(
        ready,
        "gauge",
        "Whether a loaded model can compute now (0 while its process is being restarted)",
        (
            (ready, labels, float(is_ready))
            for labels, model in labelled
            if not (is_ready := model.executor.is_ready()) or model.supervised is not None
        ),
    )
    counted = (
        (labels, model.supervised.deaths())
        for labels, model in labelled
        if model.supervised is not None
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

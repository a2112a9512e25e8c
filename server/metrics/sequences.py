"""What the metrics page says about sequences."""

from collections.abc import Sequence

from trivet.server.metrics.text import Labels, Page
from trivet.server.scheduling.statistics import ModelStatistics


def write_sequences(page: Page, labelled: Sequence[tuple[Labels, ModelStatistics]]) -> None:
    """How many are open, how many of them wait for a slot, and how those before ended."""
    counted = [(labels, each.sequences) for labels, each in labelled if each.sequences is not None]
    is_open, waiting, ended = (f"trivet_sequences_{n}" for n in ("open", "waiting", "ended_total"))
    page.family(
        is_open,
        "gauge",
        "Sequences that have begun and not ended",
        [(is_open, labels, counts.num_open) for labels, counts in counted],
    )
    page.family(
        waiting,
        "gauge",
        "Open sequences that wait for a slot of an instance",
        [(waiting, labels, counts.num_waiting) for labels, counts in counted],
    )
    page.family(
        ended,
        "counter",
        "Sequences that have ended, by how",
        [
            (ended, {**labels, "how": how.value}, count)
            for labels, counts in counted
            for how, count in counts.ended.items()
        ],
    )

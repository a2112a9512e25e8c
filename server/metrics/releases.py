"""The metrics of splits: what became of the requests of each arm."""

from collections.abc import Iterable, Mapping
from typing import Any

from trivet.backends.api.naming import name_in, namespace_in
from trivet.server.metrics.text import Labels, Page, buckets, observed
from trivet.server.rollouts.arms import Arm
from trivet.server.shadows.mirror import Verdict


def write_arms(page: Page, arms: Iterable[tuple[str, Arm]]) -> None:
    """Of all models whose traffic is shared out."""
    labelled = [(_labels(name, arm), arm) for name, arm in arms]
    for metric, text, values in (
        (
            "trivet_arm_requests_total",
            "Requests that a version got by a split and that have ended",
            [(labels, arm.num_requests) for labels, arm in labelled],
        ),
        (
            "trivet_arm_errors_total",
            "Those of them that got no answer",
            [(labels, arm.num_errors) for labels, arm in labelled],
        ),
        (
            "trivet_arm_outcomes_total",
            "Numbers that clients reported about them",
            [
                ({**labels, "outcome": name}, each.count)
                for labels, arm in labelled
                for name, each in arm.outcomes.items()
            ],
        ),
    ):
        page.family(metric, "counter", text, ((metric, *value) for value in values))
    mean, latency = "trivet_arm_outcome_mean", "trivet_arm_request_duration_seconds"
    page.family(
        mean,
        "gauge",
        "Mean of the numbers that clients reported",
        (
            (mean, {**labels, "outcome": name}, each.mean)
            for labels, arm in labelled
            for name, each in arm.outcomes.items()
        ),
    )
    page.family(
        latency,
        "histogram",
        "Duration of those that were answered in seconds",
        buckets(latency, observed((labels, arm.latency) for labels, arm in labelled)),
    )


def write_shadows(page: Page, shadows: Iterable[tuple[str, int, Mapping[Verdict, int]]]) -> None:
    """What became of the copies that versions are asked beside."""
    name = "trivet_shadow_requests_total"
    page.family(
        name,
        "counter",
        "Requests whose copy was for a shadow, by what became of it",
        (
            (name, {**_model(key), "version": str(version), "verdict": verdict.value}, count)
            for key, version, counts in shadows
            for verdict, count in counts.items()
        ),
    )


def write_rollouts(page: Page, rollouts: Iterable[Mapping[str, Any]]) -> None:
    """The part of the traffic that each candidate has, and how roll-outs have ended."""
    known = list(rollouts)
    part, ended = "trivet_rollout_percent", "trivet_rollouts_ended_total"
    page.family(
        part,
        "gauge",
        "Part of the requests that a version which is being rolled out gets",
        (
            (part, {**_model(each["model"]), "version": str(each["candidate"])}, each["percent"])
            for each in known
            if each.get("phase") in ("waiting", "running", "paused")
        ),
    )
    page.family(
        ended,
        "counter",
        "Roll-outs that have ended, by how",
        (
            (ended, {**_model(each["model"]), "verdict": verdict}, count)
            for each in known
            for verdict, count in each["verdicts"].items()
        ),
    )


def _labels(name: str, arm: Arm) -> Labels:
    return {**_model(arm.key), "version": str(arm.version), "arm": name}


def _model(key: str) -> Labels:
    namespace = namespace_in(key)
    labels = {"model": name_in(key)}
    return {**labels, "namespace": namespace} if namespace else labels

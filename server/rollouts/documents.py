"""Roll-outs and traffic as clients see them."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from trivet.server.models.traffic import WHOLE, Traffic
from trivet.server.rollouts.arms import Arm
from trivet.server.rollouts.book import Entry, told
from trivet.server.rollouts.comparing import Difference
from trivet.server.rollouts.machine import Rollout, Watched
from trivet.server.shadows.mirror import Verdict

Document = dict[str, Any]


def rollout_document(model: str, entry: Entry) -> Document:
    """The roll-out that goes on, or the last one, and which versions are refused."""
    document: Document = {"model": model, "stable": entry.stable}
    if entry.rollout is not None:
        document |= _rollout(entry.rollout)
    refused = {str(version): each.reason for version, each in sorted(entry.refused.items())}
    verdicts = {phase.value: count for phase, count in entry.verdicts.items()}
    return {**document, "refused": refused, "verdicts": verdicts}


def _rollout(rollout: Rollout) -> Document:
    policy = rollout.policy
    return {
        "phase": rollout.phase.value,
        "stable": rollout.candidate if rollout.weight == WHOLE else rollout.stable,
        "candidate": rollout.candidate,
        "percent": rollout.weight / 100,
        "step": rollout.step,
        "steps": [weight / 100 for weight in policy.steps],
        "elapsed_s": round(rollout.elapsed_s, 3),
        "bake_s": policy.bake_s,
        "samples": rollout.samples,
        "min_samples": policy.min_samples,
        "reason": told(rollout) if rollout.is_ended else "",
        "guards": [_guard(each) for each in rollout.figures.values()],
    }


def _guard(watched: Watched) -> Document:
    counted = (("candidate", watched.candidate), ("stable", watched.stable))
    return {
        "name": watched.guard.name,
        "tolerance": watched.guard.tolerance,
        "chance": watched.evidence.chance,
        **{name: {"requests": each.requests, "events": each.events} for name, each in counted},
    }


def traffic_document(
    model: str,
    traffic: Traffic,
    arms: Mapping[str, Arm],
    differences: Mapping[str, Mapping[str, Difference]],
    shadows: Mapping[int, Mapping[Verdict, int]],
) -> Document:
    """Who gets which version, and what came of it."""
    return {
        "model": model,
        "labels": dict(traffic.labels),
        "split": {share.name: share.weight / 100 for share in traffic.split},
        "sticky": list(traffic.sticky),
        "arms": {name: _arm(arm) for name, arm in arms.items()},
        "differences": {
            name: {arm: _difference(each) for arm, each in others.items()}
            for name, others in differences.items()
        },
        "shadows": {
            str(version): {verdict.value: counts.get(verdict, 0) for verdict in Verdict}
            for version, counts in shadows.items()
        },
    }


def _arm(arm: Arm) -> Document:
    answered = arm.num_requests - arm.num_errors
    return {
        "version": arm.version,
        "requests": arm.num_requests,
        "errors": arm.num_errors,
        "mean_latency_s": arm.latency.total / answered if answered else None,
        "outcomes": {
            name: {"count": each.count, "mean": each.mean if each.count else None}
            for name, each in arm.outcomes.items()
        },
    }


def _difference(difference: Difference) -> Document:
    bounds = {"low": difference.low, "high": difference.high}
    known = {name: bound if isfinite(bound) else None for name, bound in bounds.items()}
    return {"mean": difference.mean, **known, "chance": difference.chance}

"""How many replicas there should be, by what waits in them. Pure but for `wanted_replicas`, which
Serve's controller calls."""

import math
from collections.abc import Collection
from typing import Any, Protocol

WAITING = "waiting"
"""Requests in a replica's queues."""
ACTIVE = "active"
"""1 where a replica has had requests since it was looked at before, else 0."""


class Context(Protocol):
    """What Serve tells a policy."""

    current_num_replicas: int
    aggregated_metrics: dict[str, dict[Any, float]]
    config: Any


def wanted_replicas(context: Context) -> tuple[float, dict[str, Any]]:
    """Serve's policy: it asks several times a second, keeps to the limits, and waits before it does
    what is said. The queue of one replica is what Serve calls its ongoing requests."""
    told = context.aggregated_metrics
    waiting, active = told.get(WAITING, {}), told.get(ACTIVE, {})
    wanted = decide(
        context.current_num_replicas,
        waiting.values(),
        is_active=not active or any(active.values()),
        queue=context.config.target_ongoing_requests,
    )
    return float(wanted), {}


def decide(current: int, waiting: Collection[float], *, is_active: bool, queue: float) -> int:
    """More where queues are longer than `queue` on the average, as many as make them so; one less
    where the others would keep them below half of it; none where nobody has asked."""
    if not waiting:
        return current
    total = sum(waiting)
    if total > queue * current:
        return max(current + 1, math.ceil(total / queue))
    if current > 1 and total <= queue * (current - 1) / 2:
        return current - 1
    return current if current > 1 or is_active or total else 0

"""What a route or an RPC asks of a key. Each row of the front rooms' tables names one scope."""

from enum import StrEnum


class Scope(StrEnum):
    """What a route asks of its caller. Keys have some of `infer`, `admin` and `metrics`."""

    OPEN = "open"
    """Nothing: probes have no keys."""
    ANY = "any"
    """A key of any scope: what there is, and how it does."""
    INFER = "infer"
    """Ask models."""
    ADMIN = "admin"
    """Change what the server does, or see into its memory."""
    METRICS = "metrics"
    """Read the Prometheus page."""


GRANTABLE = (Scope.INFER, Scope.ADMIN, Scope.METRICS)

"""How a model's instances are given work, in whatever order it is done."""

from collections.abc import Mapping
from dataclasses import dataclass

from trivet.backends.api import Batch
from trivet.server.scheduling.joining import MakeBatch
from trivet.server.scheduling.rate_limit import Permit


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a model's config and the server's options ask for."""

    hold_until: int = 0
    """Test hook: start nothing before so many requests wait (once)."""
    permits: Mapping[str, Permit] | None = None
    """By instance name, under a rate limiter."""
    make_batch: MakeBatch = Batch
    """Another kind of batch, where the model's config asks for one."""


PLAIN = Dispatch()
"""Without any of that."""

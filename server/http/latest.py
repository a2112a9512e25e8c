"""What a connection's requests have alike from one to the next."""

from collections.abc import Callable

from trivet.backends.api.value import value
from trivet.server.http.head import Head
from trivet.server.http.plan import RequestPlan


@value
class Latest:
    """The request that came last, as the next one probably begins, too: clients repeat all but the
    values. Then these bytes are not looked into again."""

    prefix: bytes
    """All before its tensors."""
    size_bytes: int
    """Of the whole request."""
    head: Head
    plan: RequestPlan
    begin: Callable[..., None]
    """Who answers it."""

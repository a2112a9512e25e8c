"""Which arm answered a request, for whoever reports later how it turned out. Owned by the event
loop."""

from hashlib import blake2b
from typing import Generic, TypeVar

from trivet.backends.api import NotFound

Arm = TypeVar("Arm")

MOST_REMEMBERED = 100_000
_LONG = 64
"""Characters of an id; of longer ones a digest is kept: clients choose them."""


class Answered(Generic[Arm]):
    """The last requests that were shared out, by their ids."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._arms: dict[str, Arm] = {}

    def remember(self, request_id: str, arm: Arm) -> None:
        """It gets its answer from this one."""
        arms = self._arms
        arms[_short(request_id)] = arm
        if len(arms) > self._most:
            del arms[next(iter(arms))]

    def arm_of(self, request_id: str) -> Arm:
        """Who answered it. Raises NotFound."""
        arm = self._arms.get(_short(request_id))
        if arm is None:
            raise NotFound(
                f"request '{request_id[:128]}' is not known here: feedback is taken for the last "
                f"{self._most:,} requests that were shared out between versions, by the id of the "
                "request (for OpenAI's APIs, of the answer), until the server ends"
            )
        return arm


def _short(request_id: str) -> str:
    if len(request_id) <= _LONG:
        return request_id
    digest = blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=_LONG)
    return digest.hexdigest()

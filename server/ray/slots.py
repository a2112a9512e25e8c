"""Which replica has which server of a way in's proxy. Pure: gets the time."""

from collections.abc import Sequence
from dataclasses import dataclass

FORGOTTEN_S = 30.0
"""A replica that has not said for so long that it is there is gone, and its address may be another
program's."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One server, as it says of itself."""

    name: str
    host: str
    http_port: int
    grpc_port: int


class Slots:
    """A fixed number of servers that replicas come to and go from. Owned by the way in's loop."""

    def __init__(self, count: int) -> None:
        self._taken: list[Replica | None] = [None] * count
        self._heard_s = [-FORGOTTEN_S] * count

    @property
    def replicas(self) -> Sequence[Replica | None]:
        """By slot."""
        return tuple(self._taken)

    def hear(self, replica: Replica, now_s: float) -> int | None:
        """Notes that it is there. Returns the slot that is its own from now on, or None if nothing
        has changed. Without a free one it gets that of whom nobody has heard for longest."""
        for slot, known in enumerate(self._taken):
            if known == replica:
                self._heard_s[slot] = now_s
                return None
        slot = min(range(len(self._taken)), key=self._worth)
        self._taken[slot], self._heard_s[slot] = replica, now_s
        return slot

    def forget(self, now_s: float) -> list[int]:
        """The slots of those that have not been heard of; they are free."""
        gone = [
            slot
            for slot, known in enumerate(self._taken)
            if known is not None and now_s - self._heard_s[slot] > FORGOTTEN_S
        ]
        for slot in gone:
            self._taken[slot] = None
        return gone

    def release(self, name: str) -> list[int]:
        """The slots of one that has said that it goes."""
        left = [slot for slot, known in enumerate(self._taken) if known and known.name == name]
        for slot in left:
            self._taken[slot] = None
        return left

    def _worth(self, slot: int) -> tuple[bool, float]:
        return self._taken[slot] is not None, self._heard_s[slot]

"""Whether a process is alive, by the beats that it sends."""

BEAT_S = 0.25
"""Time between two beats."""
SILENT_S = 1.0
"""A process that has not been heard for so long is not ready."""


class Pulse:
    """How long a process has been silent. Pure.

    Counted in the looks of its observer: where both stood still, nobody was silent.
    """

    __slots__ = ("_looked_s", "silent_s")

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self.silent_s = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether it has not been heard for so long that it is not ready."""
        return self.silent_s >= SILENT_S

    def heard(self) -> None:
        """It has said something."""
        self.silent_s = 0.0

    def look(self, now_s: float) -> None:
        """Called at least once every BEAT_S."""
        self.silent_s += min(now_s - self._looked_s, 2 * BEAT_S)
        self._looked_s = now_s

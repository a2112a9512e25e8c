"""Something around the server that fails for a while: which of its failures to tell."""

import time
from collections.abc import Callable

PERIOD_S = 60.0
"""Least time between two words about the same thing."""


class Outage:
    """Of one thing, such as a folder that cannot be read. Whoever meets a failure asks whether to
    tell it: the first, and after that one a minute, also of what fails and works by turns."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._quiet_until_s = float("-inf")
        self._is_told = False

    def goes_on(self) -> bool:
        """Notes a failure; returns whether to tell it."""
        now_s = self._monotonic()
        if now_s < self._quiet_until_s:
            return False
        self._quiet_until_s = now_s + PERIOD_S
        self._is_told = True
        return True

    def ends(self) -> bool:
        """Notes a success; returns whether that is worth a word, because a failure had its own."""
        was_told, self._is_told = self._is_told, False
        return was_told

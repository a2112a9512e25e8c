"""How long to wait before a process that died is started again."""

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0


class Backoff:
    """Doubles with every failure in a row. Pure: the caller does the waiting."""

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S

    def next_delay_s(self) -> float:
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        return delay_s

    def reset(self) -> None:
        """It has worked: the next failure is a first one."""
        self._delay_s = FIRST_DELAY_S

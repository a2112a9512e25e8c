"""How long to wait before a process that died is started again."""

SOON_S = 0.1
"""Before the first new start: most deaths are the only ones."""
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
_LOOP = 3


class Backoff:
    """Doubles with every failure in a row. Pure: the caller does the waiting."""

    def __init__(self) -> None:
        self.num_failures = 0
        """In a row."""

    @property
    def is_looping(self) -> bool:
        """Whether it has failed so often in a row that the next start will hardly do better."""
        return self.num_failures >= _LOOP

    def next_delay_s(self) -> float:
        """Notes a failure; how long to wait after it."""
        self.num_failures += 1
        if self.num_failures == 1:
            return SOON_S
        exponent = min(self.num_failures - 2, 16)
        return float(min(FIRST_DELAY_S * 2**exponent, LONGEST_DELAY_S))

    def reset(self) -> None:
        """It has worked: the next failure is a first one."""
        self.num_failures = 0

"""What a token more in a step costs, found from the steps that are computed."""

_KEPT = 0.98
"""Of what a step says, at each step after it: some fifty steps count."""
_FIRST_FIXED = 16
"""What a step takes beside its tokens, in tokens, until steps of several sizes were seen."""


class StepCosts:
    """Least squares of seconds = fixed + each * tokens over the last steps, weighted by age."""

    def __init__(self) -> None:
        self._weight = self._tokens = self._seconds = self._squares = self._products = 0.0

    def note(self, num_tokens: int, seconds: float) -> None:
        """A step that only decoded."""
        self._weight = self._weight * _KEPT + 1
        self._tokens = self._tokens * _KEPT + num_tokens
        self._seconds = self._seconds * _KEPT + seconds
        self._squares = self._squares * _KEPT + num_tokens * num_tokens
        self._products = self._products * _KEPT + num_tokens * seconds

    def of_step(self, num_tokens: int) -> float:
        """Seconds that a step of so many takes; 0 before the first."""
        if not self._weight:
            return 0.0
        mean = self._tokens / self._weight
        return max(self._seconds / self._weight + (num_tokens - mean) * self.of_token(), 0.0)

    def of_token(self) -> float:
        """Seconds that a step takes longer for each token more."""
        if not self._weight:
            return 0.0
        mean = self._tokens / self._weight
        spread = self._squares / self._weight - mean * mean
        if spread < 0.01 * mean * mean:
            return self._seconds / self._weight / (mean + _FIRST_FIXED)
        covariance = self._products / self._weight - mean * self._seconds / self._weight
        return max(covariance / spread, 0.0)

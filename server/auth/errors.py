"""Why a caller is turned away. The front rooms' tables say what each is called on the wire."""

from trivet.backends.api import ServingError


class Unauthenticated(ServingError):
    """No key, or one that is not known (any more)."""


class PermissionDenied(ServingError):
    """A known caller asks for what its key does not allow."""


class RateLimited(ServingError):
    """A key has used up what it may use for now."""

    def __init__(self, message: str, kind: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.kind = kind
        """What ran out: "requests" or "tokens"."""
        self.retry_after_s = retry_after_s

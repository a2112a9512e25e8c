"""Errors in TEI's form, and the table from error class to its words."""

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    QueueFull,
    QueueTimeout,
    ServingError,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated
from trivet.server.http.error_types import ErrorTypes
from trivet.server.http.guarding import answering


class Unreadable(InvalidRequest):
    """The body is not what the route takes."""


class Empty(InvalidRequest):
    """There is nothing in it to be computed."""


class WrongImage(InvalidRequest):
    """A file that is no image, or too large a one."""


_TYPES = ErrorTypes(
    (
        (Unreadable, "Validation", 422),
        (Empty, "Empty", 400),
        (WrongImage, "Validation", 400),
        (InvalidRequest, "Validation", 413),
        (NotFound, "Validation", 413),
        (Unsupported, "Backend", 424),
        (QueueFull, "Overloaded", 429),
        (QueueTimeout, "Overloaded", 429),
        (Unavailable, "Unhealthy", 503),
        (BackendFailed, "Backend", 424),
        (DeadlineExceeded, "Backend", None),
        (Cancelled, "Backend", None),
        (Unauthenticated, "Validation", None),
        (PermissionDenied, "Validation", None),
        (RateLimited, "Overloaded", None),
        (ServingError, "Backend", 500),
    )
)
"""That a text is too long, or a batch, is 413 there."""


refusal = _TYPES.refusal
answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

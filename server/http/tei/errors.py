"""Errors in TEI's form, and the table from error class to its words."""

import orjson

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    QueueFull,
    QueueTimeout,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated
from trivet.server.http.answers import Answer
from trivet.server.http.errors import headers_of, status_of
from trivet.server.http.guarding import answering


class Unreadable(InvalidRequest):
    """The body is not what the route takes."""


class Empty(InvalidRequest):
    """There is nothing in it to be computed."""


class WrongImage(InvalidRequest):
    """A file that is no image, or too large a one."""


_KINDS: tuple[tuple[type[ServingError], str, int | None], ...] = (
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
"""Class, `error_type`, status; None: the status that the class has everywhere. That a text is too
long, or a batch, is 413 there."""


def refusal(error: ServingError) -> Answer:
    """The answer that an error is."""
    _, kind, status = next(row for row in _KINDS if isinstance(error, row[0]))
    message = error.message.encode(errors="replace").decode()
    answer = Answer(
        (orjson.dumps({"error": message, "error_type": kind}),),
        status=status_of(error) if status is None else status,
        extra_headers=headers_of(error),
    )
    if isinstance(error, TooLarge):
        answer.force_close()
    return answer


answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

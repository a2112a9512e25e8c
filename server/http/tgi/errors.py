"""Errors in TGI's form, and the table from error class to its words."""

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

VALIDATION, OVERLOADED = "validation", "overloaded"
_KINDS: tuple[tuple[type[ServingError], str, int | None], ...] = (
    (TooLarge, VALIDATION, None),
    (InvalidRequest, VALIDATION, 422),
    (NotFound, VALIDATION, 422),
    (Unsupported, VALIDATION, 422),
    (QueueFull, OVERLOADED, 429),
    (QueueTimeout, OVERLOADED, 429),
    (Unavailable, "healthcheck", 503),
    (BackendFailed, "generation", 424),
    (DeadlineExceeded, "incomplete_generation", None),
    (Cancelled, "incomplete_generation", None),
    (Unauthenticated, "authentication", None),
    (PermissionDenied, "permission", None),
    (RateLimited, OVERLOADED, None),
    (ServingError, "incomplete_generation", 500),
)
"""Class, `error_type`, status; None: the status that the class has everywhere."""


class TemplateError(InvalidRequest):
    """The conversation does not fit the model's chat template, or there is none."""


def error_document(error: ServingError) -> dict[str, str]:
    """The body of an error answer, or of an event that ends a stream."""
    message = error.message.encode(errors="replace").decode()
    return {"error": message, "error_type": _row(error)[0]}


def error_status(error: ServingError) -> int:
    """The HTTP status of an error here."""
    return _row(error)[1]


def _row(error: ServingError) -> tuple[str, int]:
    if isinstance(error, TemplateError):
        return "template_error", 422
    _, kind, status = next(row for row in _KINDS if isinstance(error, row[0]))
    return kind, status_of(error) if status is None else status


def refusal(error: ServingError) -> Answer:
    """The answer that an error is."""
    body = orjson.dumps(error_document(error))
    answer = Answer((body,), status=error_status(error), extra_headers=headers_of(error))
    if isinstance(error, TooLarge):
        answer.force_close()
    return answer


answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

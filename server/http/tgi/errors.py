"""Errors in TGI's form, and the table from error class to its words."""

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
from trivet.server.http.error_types import ErrorTypes
from trivet.server.http.guarding import answering

VALIDATION, OVERLOADED = "validation", "overloaded"


class TemplateError(InvalidRequest):
    """The conversation does not fit the model's chat template, or there is none."""


_TYPES = ErrorTypes(
    (
        (TemplateError, "template_error", 422),
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
)
error_document, refusal = _TYPES.document, _TYPES.refusal
answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

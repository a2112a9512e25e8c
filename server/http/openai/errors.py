"""Errors in OpenAI's form, and the table from error class to its words."""

import re
from http import HTTPStatus

import orjson

from trivet.backends.api import (
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    NotFound,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated
from trivet.server.http.answers import Answer
from trivet.server.http.errors import HttpError, headers_of, status_of
from trivet.server.http.guarding import answering
from trivet.server.http.openai.responses.errors import PreviousResponseNotFound, ResponseNotFound

_TYPES: tuple[tuple[type[ServingError], str], ...] = (
    (ModelNotFound, "NotFoundError"),
    (TooLarge, "BadRequestError"),
    (InvalidRequest, "BadRequestError"),
    (NotFound, "NotFoundError"),
    (Unsupported, "BadRequestError"),
    (Unavailable, "ServiceUnavailableError"),
    (LoadFailed, "BadRequestError"),
    (Unauthenticated, "invalid_request_error"),
    (PermissionDenied, "invalid_request_error"),
    (ServingError, "InternalServerError"),
)
_CODES: tuple[tuple[type[ServingError], str], ...] = (
    (Unauthenticated, "invalid_api_key"),
    (PermissionDenied, "insufficient_permissions"),
    (RateLimited, "rate_limit_exceeded"),
    (PreviousResponseNotFound, "previous_response_not_found"),
)
"""What OpenAI calls these; all others have their status."""
_PARAM = re.compile(r"[a-z_][a-z0-9_.\[\]]*(?=: )")
"""Our texts about a field begin with its name and a colon."""


def error_status(error: ServingError) -> int:
    """The HTTP status: as everywhere, but an unknown model is not found and what is not offered is
    the request's fault."""
    if isinstance(error, ModelNotFound):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.BAD_REQUEST if isinstance(error, Unsupported) else status_of(error)


def error_document(error: ServingError) -> dict[str, object]:
    """The body of an error answer, or of an event that ends a stream."""
    named = _PARAM.match(error.message)
    # All others that these routes look up by name are models.
    is_missing = isinstance(error, ModelNotFound | NotFound)
    name = "response_id" if isinstance(error, ResponseNotFound) else "model"
    param = name if is_missing else named[0] if named else None
    message = error.message.encode(errors="replace").decode()
    return {
        "error": {
            "message": message,
            "type": _type(error),
            "param": param,
            "code": _code(error),
        }
    }


def _type(error: ServingError) -> str:
    if isinstance(error, RateLimited):
        return error.kind
    return next(text for cls, text in _TYPES if isinstance(error, cls))


def _code(error: ServingError) -> int | str:
    named = (code for cls, code in _CODES if isinstance(error, cls))
    return next(named, int(error_status(error)))


def fault(target: str, error: HttpError) -> Answer:
    """The answer to a fault of HTTP under these routes, as OpenAI's own server words it."""
    is_unknown = error.status == HTTPStatus.NOT_FOUND
    message = f"Unknown request URL: {target}" if is_unknown else error.message
    document = {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url" if is_unknown else error.status,
    }
    body = orjson.dumps({"error": document})
    answer = Answer((body,), status=error.status, extra_headers=error.headers)
    if error.closes:
        answer.force_close()
    return answer


def refusal(error: ServingError) -> Answer:
    """The answer that an error is."""
    body = orjson.dumps(error_document(error))
    return Answer((body,), status=int(error_status(error)), extra_headers=headers_of(error))


answers_errors = answering(refusal)
"""Gives a handler's errors their form here."""

"""Errors in Anthropic's form, and the table from error class to its words."""

import functools
import re

import orjson
from aiohttp import web

from trivet.backends.api import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated
from trivet.server.http.answers import Answer
from trivet.server.http.errors import HttpError, headers_of
from trivet.server.http.openai.errors import error_status
from trivet.server.http.routes import Call, Handler

_TYPES: tuple[tuple[type[ServingError], str], ...] = (
    (ModelNotFound, "not_found_error"),
    (TooLarge, "request_too_large"),
    (InvalidRequest, "invalid_request_error"),
    (Unsupported, "invalid_request_error"),
    (NotFound, "not_found_error"),
    (DeadlineExceeded, "timeout_error"),
    (Unavailable, "overloaded_error"),
    (Unauthenticated, "authentication_error"),
    (PermissionDenied, "permission_error"),
    (RateLimited, "rate_limit_error"),
    (ServingError, "api_error"),
)
_FAULTS = {404: "not_found_error", 413: "request_too_large"}
"""What faults of HTTP are called; all others are the request's."""
_RENAMED = (
    (re.compile(r"^stop:"), "stop_sequences:"),
    (re.compile(r"\.function\.parameters\b"), ".input_schema"),
    (re.compile(r"\.function\.name\b"), ".name"),
    (re.compile(r"^response_format(\.json_schema\.schema)?:"), "output_config.format.schema:"),
    (re.compile(r"use required, none or a function's name,"), "use any, none or a tool's name,"),
)
"""What chats call a field, and what it is called here."""
_LONGEST_WAIT_S = 60
"""The client sleeps as long as it is told to; beyond that it is told not to try again."""


class NamedAnswer(Answer):
    """One that has the request's name under Anthropic's header, too."""

    def head(self, connection: str) -> bytes:
        self._extra_headers = {**self._extra_headers, "request-id": self.request_id}
        return super().head(connection)


def error_document(error: ServingError, request_id: str | None = None) -> dict[str, object]:
    """The body of an error answer, or of an event that ends a stream."""
    message = error.message.encode(errors="replace").decode()
    for pattern, name in _RENAMED:
        message = pattern.sub(name, message)
    kind = next(text for cls, text in _TYPES if isinstance(error, cls))
    return _document(kind, message, request_id)


def fault(target: str, error: HttpError) -> Answer:
    """The answer to a fault of HTTP under these routes."""
    text = f"no such route: {target}" if error.status == 404 else error.message
    kind = _FAULTS.get(error.status, "invalid_request_error")
    body = orjson.dumps(_document(kind, text, None))
    answer = NamedAnswer((body,), status=error.status, extra_headers=error.headers)
    if error.closes:
        answer.force_close()
    return answer


def refusal(error: ServingError, request_id: str | None = None) -> Answer:
    """The answer that an error is."""
    body = orjson.dumps(error_document(error, request_id))
    headers = dict(headers_of(error))
    if int(headers.get("Retry-After", 0)) > _LONGEST_WAIT_S:
        headers["x-should-retry"] = "false"
    answer = NamedAnswer((body,), status=int(error_status(error)), extra_headers=headers)
    if isinstance(error, TooLarge):
        answer.force_close()
    return answer


def answers_errors(handler: Handler) -> Handler:
    """Gives a handler's errors their form here."""

    @functools.wraps(handler)
    async def guarded(call: Call) -> web.StreamResponse:
        try:
            return await handler(call)
        except ServingError as error:
            return refusal(error, call.request_id)
        except HttpError as error:
            return fault("", error)

    return guarded


def _document(kind: str, message: str, request_id: str | None) -> dict[str, object]:
    told = {"type": kind, "message": message}
    return {"type": "error", "error": told, "request_id": request_id}

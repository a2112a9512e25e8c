"""Errors in OpenAI's form, and the table from error class to its words."""

import functools
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import orjson
from aiohttp import web

from trivet.backends.api import (
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.http.answers import Answer
from trivet.server.http.errors import headers_of, status_of
from trivet.server.http.routes import Call

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
_TYPES: tuple[tuple[type[ServingError], str], ...] = (
    (ModelNotFound, "NotFoundError"),
    (TooLarge, "BadRequestError"),
    (InvalidRequest, "BadRequestError"),
    (NotFound, "NotFoundError"),
    (Unsupported, "BadRequestError"),
    (Unavailable, "ServiceUnavailableError"),
    (ServingError, "InternalServerError"),
)
_PARAM = re.compile(r"[a-z_]+[a-z0-9_.\[\]]*(?=: )")
"""Our texts about a field begin with its name and a colon."""


def error_status(error: ServingError) -> int:
    """The HTTP status: as everywhere, but an unknown model is not found and what is not offered is
    the request's fault."""
    if isinstance(error, ModelNotFound):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.BAD_REQUEST if isinstance(error, Unsupported) else status_of(error)


def error_document(error: ServingError) -> dict[str, object]:
    """The body of an error answer, or of an event that ends a stream."""
    kind = next(text for cls, text in _TYPES if isinstance(error, cls))
    named = _PARAM.match(error.message)
    # All that these routes look up by name is a model.
    is_missing = isinstance(error, ModelNotFound | NotFound)
    param = "model" if is_missing else named[0] if named else None
    message = error.message.encode(errors="replace").decode()
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": param,
            "code": int(error_status(error)),
        }
    }


def answers_errors(handler: Handler) -> Handler:
    """Gives a handler's errors their form here."""

    @functools.wraps(handler)
    async def guarded(call: Call) -> web.StreamResponse:
        try:
            return await handler(call)
        except ServingError as error:
            body = orjson.dumps(error_document(error))
            status = int(error_status(error))
            return Answer((body,), status=status, extra_headers=headers_of(error))

    return guarded

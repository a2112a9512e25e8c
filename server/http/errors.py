"""What an error is called in HTTP: one table from error class to status. Nothing else names one."""

import math
from collections.abc import Mapping
from http import HTTPStatus

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    NotFound,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated

CLIENT_CLOSED_REQUEST = 499

# An error has the status of the nearest class in its family tree that is listed.
_STATUS_BY_CLASS: Mapping[type[BaseException], int] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotFound: HTTPStatus.NOT_FOUND,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    Cancelled: CLIENT_CLOSED_REQUEST,
    Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    BackendFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    LoadFailed: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    PermissionDenied: HTTPStatus.FORBIDDEN,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    ServingError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class HttpError(Exception):
    """A fault of HTTP itself (route, header, encoding), which the error tree does not know."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.message = message
        self.headers = headers or {}
        self.closes = closes
        """Whether the connection is of no use afterwards: the rest of the body is not read."""


def status_of(error: ServingError) -> int:
    """The HTTP status of an error."""
    return next(int(_STATUS_BY_CLASS[c]) for c in type(error).__mro__ if c in _STATUS_BY_CLASS)


def headers_of(error: ServingError) -> Mapping[str, str]:
    """Further headers that tell a client what to do about an error."""
    if isinstance(error, RateLimited | Unavailable):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {}

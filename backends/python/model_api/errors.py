"""Errors that user code makes for its client."""

from trivet.backends.api import (
    AlreadyExists,
    BackendFailed,
    Cancelled,
    InvalidRequest,
    NotFound,
    ServingError,
    Unavailable,
    Unsupported,
)


class TritonError:
    """An error with which a response answers its request."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def __str__(self) -> str:
        return str(self._message)

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class TritonModelException(Exception):
    """Raised on purpose, so its text goes to the client as it is."""

    def message(self) -> str:
        return str(self)


_CLASSES: dict[int, type[ServingError]] = {
    TritonError.NOT_FOUND: NotFound,
    TritonError.INVALID_ARG: InvalidRequest,
    TritonError.UNAVAILABLE: Unavailable,
    TritonError.UNSUPPORTED: Unsupported,
    TritonError.ALREADY_EXISTS: AlreadyExists,
    TritonError.CANCELLED: Cancelled,
}


def to_serving_error(error: object) -> ServingError:
    """The error for the client; anything but a TritonError is taken by its text."""
    code = error.code() if isinstance(error, TritonError) else TritonError.INTERNAL
    return _CLASSES.get(code, BackendFailed)(str(error))


def from_serving_error(error: ServingError) -> TritonError:
    """The error of a nested request, for user code."""
    for code, kind in _CLASSES.items():
        if isinstance(error, kind):
            return TritonError(error.message, code)
    return TritonError(error.message)

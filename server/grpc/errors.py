"""The one table from our errors to gRPC status codes."""

from trivet.backends.api import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    NotFound,
    ResponseTooLarge,
    ServingError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from trivet.server.auth.errors import PermissionDenied, RateLimited, Unauthenticated
from trivet.server.grpc.transport import Code

# The first row whose class fits counts, so a class stands above its base.
CODES: tuple[tuple[type[ServingError], Code], ...] = (
    (TooLarge, Code.RESOURCE_EXHAUSTED),
    (AlreadyExists, Code.ALREADY_EXISTS),
    (InvalidRequest, Code.INVALID_ARGUMENT),
    (NotFound, Code.NOT_FOUND),
    (Unavailable, Code.UNAVAILABLE),
    (DeadlineExceeded, Code.DEADLINE_EXCEEDED),
    (Cancelled, Code.CANCELLED),
    (Unsupported, Code.UNIMPLEMENTED),
    (LoadFailed, Code.INTERNAL),
    (ResponseTooLarge, Code.RESOURCE_EXHAUSTED),
    (Unauthenticated, Code.UNAUTHENTICATED),
    (PermissionDenied, Code.PERMISSION_DENIED),
    (RateLimited, Code.RESOURCE_EXHAUSTED),
    (ServingError, Code.INTERNAL),
)


def code_of(error: ServingError) -> Code:
    """The status code of an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))

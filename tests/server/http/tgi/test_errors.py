"""Every error class has TGI's words and status."""

import pytest

from trivet.backends.api import (
    BackendFailed,
    DeadlineExceeded,
    InstanceDied,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    QueueTimeout,
    ServingError,
    TooLarge,
    Unsupported,
)
from trivet.server.http.tgi.errors import TemplateError, refusal


@pytest.mark.parametrize(
    ("kind", "status", "error_type"),
    [
        (InvalidRequest, 422, b"validation"),
        (ModelNotFound, 422, b"validation"),
        (Unsupported, 422, b"validation"),
        (TooLarge, 413, b"validation"),
        (TemplateError, 422, b"template_error"),
        (BackendFailed, 424, b"generation"),
        (QueueFull, 429, b"overloaded"),
        (QueueTimeout, 429, b"overloaded"),
        (ModelNotReady, 503, b"healthcheck"),
        (InstanceDied, 503, b"healthcheck"),
        (DeadlineExceeded, 504, b"incomplete_generation"),
        (ServingError, 500, b"incomplete_generation"),
    ],
)
def test_error_class_has_its_words(
    kind: type[ServingError], status: int, error_type: bytes
) -> None:
    answer = refusal(kind("told"))
    assert answer.status == status
    assert answer._parts == (b'{"error":"told","error_type":"%b"}' % error_type,)


def test_who_should_come_again_is_told_when() -> None:
    assert refusal(QueueFull("told"))._extra_headers == {"Retry-After": "1"}

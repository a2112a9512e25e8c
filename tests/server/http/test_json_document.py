"""What a JSON body may hold is counted before anything is built from it."""

import pytest

from trivet.backends.api import InvalidRequest
from trivet.server.http.json_document import VALUES_PER_CONTAINER, parse_object, require_size
from trivet.server.http.limits import JsonLimits

LIMITS = JsonLimits(max_values=20 * VALUES_PER_CONTAINER)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":[' + b"[]," * 16 + b"[]]}",
        b'{"a":[' + b"{}," * 16 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(19)) + b"}",
        b'{"a":"' + b"[{:," * 1000 + b'"}',
        b'{"a":[' + b"1," * 390 + b"1]}",
    ],
)
def test_as_many_as_allowed_are_taken(text: bytes) -> None:
    assert parse_object(text, LIMITS)
    require_size(text, LIMITS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":[' + b"[]," * 19 + b"[]]}", "23 arrays, objects and keys, the limit is 20"),
        (b'{"a":[' + b"{}," * 19 + b"{}]}", "23 arrays, objects and keys, the limit is 20"),
        (b"{" + b'"a":0,' * 20 + b'"a":0}', "22 arrays, objects and keys"),
        (b'{"a":[' + b"1," * 400 + b"1]}", "more than 400 values"),
        (b'{"\\"":[' + b"[]," * 20 + b"[]]}", "arrays, objects and keys"),
    ],
)
def test_more_are_refused_with_the_option_that_raises_the_limit(text: bytes, reason: str) -> None:
    for check in (parse_object, require_size):
        with pytest.raises(InvalidRequest, match=reason) as caught:
            check(text, LIMITS)
        assert "--http-max-json-values" in caught.value.message

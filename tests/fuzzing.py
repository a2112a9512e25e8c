"""What the fuzz tests throw, for some seconds each, or for as many examples as TRIVET_FUZZ_EXAMPLES
says in the seconds of TRIVET_FUZZ_S: any JSON, JSON that is nearly right, and bytes that were right
once."""

import json
import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("TRIVET_FUZZ_EXAMPLES", "100"))
SECONDS = float(os.environ.get("TRIVET_FUZZ_S", "inf"))
_SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def fuzzed(test: Any) -> Any:
    """Above `given`: as many examples as are wanted; those that come after the time is up pass."""
    test.hypothesis.inner_test = _until_time_is_up(test.hypothesis.inner_test)
    return _SETTINGS(test)


def _until_time_is_up(test: Callable[..., None]) -> Callable[..., None]:
    end_s: list[float] = []

    @wraps(test)
    def bounded(*args: Any, **given: Any) -> None:
        if not end_s:
            end_s.append(time.monotonic() + SECONDS)
        if time.monotonic() < end_s[0]:
            test(*args, **given)

    return bounded


ODD_BYTES = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x7B])

ODD_NUMBERS = st.sampled_from(
    [0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 1e308, -0.0, 0.5, 1e-320]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    ODD_NUMBERS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """The document with something else in some of its places, without some, or with more."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ANY_JSON)
    if isinstance(document, dict):
        made = {
            key: draw(spoilt(value)) for key, value in document.items() if draw(st.integers(0, 11))
        }
        if draw(st.integers(0, 7)) == 0:
            made[draw(st.text(max_size=6))] = draw(ANY_JSON)
        return made
    if isinstance(document, list):
        made_list = [draw(spoilt(value)) for value in document]
        return [*made_list, draw(ANY_JSON)] if draw(st.integers(0, 7)) == 0 else made_list
    return document


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some of them changed, missing, doubled, or cut off."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(made) - 1, 0)))
        what = draw(st.integers(0, 4))
        if what == 0:
            made[place : place + 1] = bytes([draw(ODD_BYTES)])
        elif what == 1:
            del made[place : place + draw(st.integers(1, 9))]
        elif what == 2:
            made[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif what == 3:
            made[place:place] = made[place : place + draw(st.integers(1, 30))]
        else:
            del made[place:]
    return bytes(made)


def json_bodies(document: Any) -> st.SearchStrategy[bytes]:
    """Bodies around a document that is right."""
    text = json.dumps(document).encode()
    as_text = spoilt(document).map(lambda made: json.dumps(made).encode())
    return st.one_of(as_text, as_text, mutated(text), st.binary(max_size=60))

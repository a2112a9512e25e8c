"""The header by which a client says how long it will wait; what it asked for is dropped then."""

import asyncio
import re

from aiohttp import web
from multidict import istr

from trivet.backends.api import DeadlineExceeded, InvalidRequest
from trivet.server.http.refusal import refusal
from trivet.server.http.routes import Call, Route

HEADER = istr("x-request-timeout")
_VALUE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)?")


def timeout_of(request: web.BaseRequest) -> float | None:
    """Seconds; None without a limit. Raises InvalidRequest."""
    values = request.headers.getall(HEADER, ())
    if not values:
        return None
    match = _VALUE.fullmatch(values[0])
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else 0.0
    if len(values) > 1 or seconds <= 0:
        raise InvalidRequest(
            f"{HEADER} must be one number of seconds above 0, such as 1.5, 1.5s or 1500ms, got "
            f"{', '.join(values)[:64]!a}"
        )
    return seconds


async def answer_within(timeout_s: float, route: Route, call: Call) -> web.StreamResponse | None:
    """The handler's answer, or that it is too late; None where a stream is under way, which can
    only be broken off.

    Cancelling the handler cancels what it waits for, in whichever queue that is, as when the client
    goes away.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await route.handler(call)
    except TimeoutError:
        if not limit.expired():
            raise
    request = call.request
    if request.writer.output_size:
        return None
    error = DeadlineExceeded(f"the request was not answered within {timeout_s:g} s ({HEADER})")
    return refusal(error, route, request)

"""Errors of a handler, answered in the form of the API that it belongs to."""

import functools
from collections.abc import Callable

from aiohttp import web

from trivet.backends.api import ServingError
from trivet.server.http.answers import Answer
from trivet.server.http.routes import Call, Handler


def answering(refusal: Callable[[ServingError], Answer]) -> Callable[[Handler], Handler]:
    """Wraps a handler so that what it raises is answered with `refusal`."""

    def wrap(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def guarded(call: Call) -> web.StreamResponse:
            try:
                return await handler(call)
            except ServingError as error:
                return refusal(error)

        return guarded

    return wrap

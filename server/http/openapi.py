"""GET /openapi.json: what can be asked over HTTP."""

import asyncio
import json
from collections.abc import Sequence

from aiohttp import web

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.http.answers import Answer
from trivet.server.http.operations import Operation
from trivet.server.http.routes import Call, Route

_DOCUMENT = Operation("OpenAPI", "This document")


class OpenApi:
    """The handler. The document is made when it is asked for first."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """`routes`: all others."""
        own = Route("GET", "/openapi.json", self.document, Scope.ANY, Api.METADATA, _DOCUMENT)
        self._routes = [*routes, own]
        self._text = b""

    def routes(self) -> list[Route]:
        return self._routes[-1:]

    async def document(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The document."""
        if not self._text:
            self._text = await asyncio.to_thread(_written, self._routes)
        return Answer((self._text,))


def _written(routes: Sequence[Route]) -> bytes:
    from trivet.server.http.openapi_document import describe  # Imports all fields.

    # Not orjson, which knows no 2^64: the bound of a seed.
    return json.dumps(describe(routes)).encode()

"""GET /health and /metrics: for those who look after a server of language models."""

from http import HTTPStatus

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from trivet.server.core import Core
from trivet.server.http.answers import Answer, empty_answer
from trivet.server.http.routes import Call
from trivet.server.metrics.generating import write_generators
from trivet.server.metrics.text import Page

_NOT_READY = {"error": "unhealthy", "error_type": "healthcheck"}


class Probes:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def health(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """Whether every model that generates text can be asked now."""
        if self._core.is_generating():
            return empty_answer()
        return Answer((orjson.dumps(_NOT_READY),), status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The metrics of language models, where TGI and vLLM have them; the server's own page has
        these and all others."""
        page = Page()
        write_generators(page, self._core.measured())
        return Answer((page.text().encode(),), content_type=CONTENT_TYPE_LATEST)

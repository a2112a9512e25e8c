"""Is it alive, is it ready: for load balancers, which look at the status only."""

from http import HTTPStatus

from aiohttp import web

from trivet.server.core import Readiness
from trivet.server.http.answers import json_answer
from trivet.server.http.routes import Call, Route


class Health:
    """The health handlers. The statuses are Triton's, the bodies the Open Inference Protocol's."""

    def __init__(self, core: Readiness) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v2/health/live", self.live),
            Route("GET", "/v2/health/ready", self.ready),
            Route("GET", "/v2/models/{model}/ready", self.model_ready),
            Route("GET", "/v2/models/{model}/versions/{version}/ready", self.model_ready),
        ]

    async def live(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        is_live = self._core.is_live()
        return json_answer({"live": is_live}, status=self._status(is_good=is_live))

    async def ready(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        is_ready = self._core.is_ready()
        return json_answer({"ready": is_ready}, status=self._status(is_good=is_ready))

    async def model_ready(self, call: Call) -> web.StreamResponse:
        is_ready = self._core.is_model_ready(call.model, call.version)
        return json_answer(
            {"name": call.model, "ready": is_ready}, status=self._status(is_good=is_ready)
        )

    def _status(self, *, is_good: bool) -> int:
        if is_good:
            return HTTPStatus.OK
        stopping = self._core.is_stopping()
        return HTTPStatus.SERVICE_UNAVAILABLE if stopping else HTTPStatus.BAD_REQUEST

"""Is it alive, is it ready: for load balancers, which look at the status only."""

from http import HTTPStatus

from aiohttp import web

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Readiness
from trivet.server.http.answers import json_answer
from trivet.server.http.operations import Operation
from trivet.server.http.routes import Call, Route

_LIVE = Operation("health", "Whether the server lives")
_READY = Operation("health", "Whether every model serves")
_MODEL_READY = Operation("health", "Whether a model can be asked")


class Health:
    """The health handlers. The statuses are Triton's, the bodies the Open Inference Protocol's."""

    def __init__(self, core: Readiness) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        live, ready, one = self.live, self.ready, self.model_ready
        model = "/v2/models/{model}"
        version = f"{model}/versions/{{version}}"
        return [
            Route("GET", "/v2/health/live", live, Scope.OPEN, Api.HEALTH, _LIVE),
            Route("GET", "/v2/health/ready", ready, Scope.OPEN, Api.HEALTH, _READY),
            Route("GET", f"{model}/ready", one, Scope.OPEN, Api.HEALTH, _MODEL_READY),
            Route("GET", f"{version}/ready", one, Scope.OPEN, Api.HEALTH, _MODEL_READY),
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

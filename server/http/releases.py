"""Roll-outs, traffic and feedback: routes of our own."""

from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Releasing
from trivet.server.http.answers import Answer, empty_answer, json_answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import JsonObject, parse_object, type_name
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import ARRAY, OBJECT, Operation
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call, Route
from trivet.server.rollouts.desk import version_of

_TAG = "releases"
_TRAFFIC = Operation(_TAG, "Who gets which version, and what came of it")
_SET = Operation(_TAG, "Set labels, split and sticky keys", "v2_fields:TrafficBody", OBJECT)
_RESET = Operation(_TAG, "Let the model's traffic.toml count again")
_DIFFERENCES = Operation(_TAG, "The last answers of a shadow that differ", "", ARRAY)
_ALL = Operation(_TAG, "All roll-outs", "", ARRAY)
_ROLLOUT = Operation(_TAG, "A model's roll-out")
_HISTORY = Operation(_TAG, "Who did what with a model's roll-outs, and when", "", ARRAY)
_CHANGE = Operation(
    _TAG,
    "Start, pause, resume, promote or abort a roll-out",
    "v2_fields:RolloutBody",
    OBJECT,
    needs_body=False,
)
_FEEDBACK = Operation(
    _TAG, "Report how a request, or a version, turned out", "v2_fields:FeedbackBody", None
)
_OUTCOMES = Operation(_TAG, "What was reported, by model and version", "", ARRAY)


class ReleaseRoutes:
    """The handlers."""

    def __init__(self, core: Releasing, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        model, api = "/v2/models/{model}", Api.MODEL_REPOSITORY
        traffic, rollout = f"{model}/traffic", f"{model}/rollout"
        admin = Scope.ADMIN
        return [
            Route("GET", traffic, self.traffic, Scope.ANY, api, _TRAFFIC),
            Route("PUT", traffic, self.set_traffic, admin, api, _SET),
            Route("DELETE", traffic, self.reset_traffic, admin, api, _RESET),
            Route("GET", f"{traffic}/differences", self.differences, admin, api, _DIFFERENCES),
            Route("GET", "/v2/rollouts", self.rollouts, admin, api, _ALL),
            Route("GET", rollout, self.rollout, admin, api, _ROLLOUT),
            Route("GET", f"{rollout}/history", self.history, admin, api, _HISTORY),
            Route("POST", f"{rollout}/{{region}}", self.change, admin, api, _CHANGE),
            Route("POST", "/v2/feedback", self.feedback, Scope.INFER, Api.INFERENCE, _FEEDBACK),
            Route("GET", "/v2/feedback", self.outcomes, Scope.ANY, api, _OUTCOMES),
        ]

    async def traffic(self, call: Call) -> web.StreamResponse:
        return json_answer(self._core.releases.traffic(call.model))

    async def set_traffic(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        document = await self._document(call)
        return json_answer(self._core.releases.set_traffic(call.model, document))

    async def reset_traffic(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        return json_answer(self._core.releases.set_traffic(call.model, None))

    async def differences(self, call: Call) -> web.StreamResponse:
        lines = await self._core.releases.shadow_differences(call.model)
        return Answer([b"[", b",".join(lines), b"]"])

    async def rollouts(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        return json_answer(self._core.releases.rollouts())

    async def rollout(self, call: Call) -> web.StreamResponse:
        return json_answer(self._core.releases.rollout(call.model))

    async def history(self, call: Call) -> web.StreamResponse:
        return json_answer(self._core.releases.rollout_history(call.model))

    async def change(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        document = await self._document(call)
        return json_answer(self._core.releases.change_rollout(call.model, call.region, document))

    async def feedback(self, call: Call) -> web.StreamResponse:
        document = await self._document(call)
        releases = self._core.releases
        if "model" in document:
            model, version = _text(document, "model"), version_of(document.get("version"))
            releases.report_version(
                model, version, _text(document, "name"), _number(document, "value")
            )
            return empty_answer()
        request_id, name = (_text(document, key) for key in ("request_id", "name"))
        releases.report(request_id, name, _number(document, "value"))
        return empty_answer()

    async def outcomes(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        return json_answer(self._core.releases.outcomes())

    async def _document(self, call: Call) -> JsonObject:
        body = await read_body(call.request, self._limits)
        return parse_object(bytes(body), self._limits.json) if body else {}


def _text(document: JsonObject, key: str) -> str:
    given = document.get(key)
    if not isinstance(given, str):
        raise InvalidRequest(f"'{key}' must be a string, not {type_name(given)}")
    return given


def _number(document: JsonObject, key: str) -> float:
    given = document.get(key)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidRequest(f"'{key}' must be a number, not {type_name(given)}")
    return float(given)

"""The logging extension: which lines the server's log has, and how they look."""

from aiohttp import web

from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import ServerSettings
from trivet.server.http.answers import json_answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import parse_object
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import Operation
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call, Route

_READ = Operation("logging", "The settings")
_CHANGE = Operation("logging", "Change them", "v2_fields:SettingsBody", needs_body=False)


class LogSettings:
    """The handlers that read and change log settings."""

    def __init__(self, core: ServerSettings, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        path = "/v2/logging"
        return [
            Route("GET", path, self.read, Scope.ADMIN, Api.LOGGING, _READ),
            Route("POST", path, self.change, Scope.ADMIN, Api.LOGGING, _CHANGE),
        ]

    async def read(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        return json_answer(self._core.log_settings())

    async def change(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        body = await read_body(call.request, self._limits)
        document = parse_object(bytes(body), self._limits.json) if body else {}
        return json_answer(self._core.change_log_settings(document))

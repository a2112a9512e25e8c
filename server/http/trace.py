"""The trace extension: which requests are traced, of all models and of one."""

from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import ServerSettings
from trivet.server.http.answers import json_answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import JsonObject, parse_object, type_name
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import Operation
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call, Route
from trivet.server.tracing.setting import Change

_READ = Operation("tracing", "The settings")
_CHANGE = Operation("tracing", "Change them", "v2_fields:SettingsBody", needs_body=False)


class TraceSettings:
    """The handlers that read and change trace settings."""

    def __init__(self, core: ServerSettings, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        return [
            Route(method, f"/v2{model}/trace/setting", handler, Scope.ADMIN, Api.TRACE, operation)
            for model in ("", "/models/{model}")
            for method, handler, operation in (
                ("GET", self.read, _READ),
                ("POST", self.change, _CHANGE),
            )
        ]

    async def read(self, call: Call) -> web.StreamResponse:
        return json_answer(self._core.trace_settings(call.model))

    async def change(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        body = await read_body(call.request, self._limits)
        document = parse_object(bytes(body), self._limits.json) if body else {}
        return json_answer(self._core.change_trace_settings(_changes(document), call.model))


def _changes(document: JsonObject) -> dict[str, Change]:
    return {name: _change(name, value) for name, value in document.items()}


def _change(name: str, value: object) -> Change:
    if value is None:
        return None
    if name != "trace_level":
        if isinstance(value, str):
            return [value]
        raise InvalidRequest(
            f"trace setting '{name[:64]}' must be a string or null, not {type_name(value)}"
        )
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise InvalidRequest(
        "trace setting 'trace_level' must be an array of strings or null, such as "
        f'["TIMESTAMPS"], not {type_name(value)}'
    )

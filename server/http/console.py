"""The console: pages that everybody may load and that hold no data, and what only they ask."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict

from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.backends.api.naming import name_in
from trivet.server.auth.caller import Caller, current_caller
from trivet.server.auth.errors import PermissionDenied
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.console.assets import PREFIX, Asset, read_assets
from trivet.server.console.room import ConsoleRoom
from trivet.server.http.answers import Answer, json_answer
from trivet.server.http.operations import Operation
from trivet.server.http.origin import refuse_other_sites, refuse_strange_hosts
from trivet.server.http.routes import Call, Handler, Route, not_found

_TAG = "console"
_HTML, _ANY = ("text/html",), ("application/octet-stream",)
_PAGE = Operation(_TAG, "The console", answer=None, media=_HTML)
_DOCS = Operation(_TAG, "This document, for people", answer=None, media=_HTML)
_FILE = Operation(_TAG, "A file of the two", answer=None, media=_ANY)
_SINCE: Mapping[str, Mapping[str, object]] = {
    "since": {"type": "integer", "minimum": 0, "maximum": 10**15}
}
_CHARTS = Operation(_TAG, "What models did in the last hour", query=_SINCE)
_TRACES = Operation(_TAG, "The last traces")
_LOG = Operation(_TAG, "The last lines of the log", query=_SINCE)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
"""Nothing from elsewhere, no script in the page, and no text that becomes a page but by way of
DOMPurify."""
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_MOST_DIGITS = 16


class ConsoleRoutes:
    """The handlers."""

    def __init__(self, room: ConsoleRoom) -> None:
        self._room = room

    def routes(self) -> list[Route]:
        file, open_, api = f"{PREFIX}{{region*}}", Scope.OPEN, Api.METADATA
        charts, traces, log = (f"/v2/console/{each}" for each in ("charts", "traces", "log"))
        return [
            Route("GET", "/", _page("index"), open_, api, _PAGE),
            Route("GET", "/docs", _page("docs"), open_, api, _DOCS),
            Route("GET", file, self.file, open_, api, _FILE),
            Route("GET", charts, self.charts, Scope.METRICS, Api.STATISTICS, _CHARTS),
            Route("GET", traces, self.traces, Scope.ADMIN, Api.TRACE, _TRACES),
            Route("GET", log, self.log, Scope.ADMIN, Api.LOGGING, _LOG),
        ]

    async def file(self, call: Call) -> web.StreamResponse:
        refuse_strange_hosts(call)
        assets = await asyncio.to_thread(read_assets)
        found = assets.files.get(call.region)
        if found is None:
            raise not_found()
        return _answer(call, found, "public, max-age=31536000, immutable")

    async def charts(self, call: Call) -> web.StreamResponse:
        _refuse_strangers(call)
        return Answer(self._room.history.since(_since(call)))

    async def traces(self, call: Call) -> web.StreamResponse:
        _refuse_strangers(call)
        return json_answer({"traces": self._room.traces.newest(_visible_to(current_caller.get()))})

    async def log(self, call: Call) -> web.StreamResponse:
        _refuse_strangers(call)
        caller, lines = current_caller.get(), self._room.lines
        if caller is not None and caller.key.models is not None:
            raise PermissionDenied(
                f"key '{caller.key.name}' names its models, and the log tells of all"
            )
        told = [asdict(line) for line in lines.since(_since(call))]
        return json_answer({"started": lines.started_ms, "lines": told})


def _page(name: str) -> Handler:
    async def page(call: Call) -> web.StreamResponse:
        refuse_strange_hosts(call)
        assets = await asyncio.to_thread(read_assets)
        return _answer(call, assets.pages[name], "no-store")

    return page


def _answer(call: Call, asset: Asset, caching: str) -> Answer:
    headers = {**HEADERS, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" not in call.request.headers.get("Accept-Encoding", ""):
        return Answer((asset.content,), content_type=asset.content_type, extra_headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Answer((asset.packed,), content_type=asset.content_type, extra_headers=headers)


def _refuse_strangers(call: Call) -> None:
    refuse_other_sites(call)
    refuse_strange_hosts(call)


def _since(call: Call) -> int:
    text = call.request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InvalidRequest(f"'since' is to be the number of what came last, got '{text[:64]}'")
    return int(text)


def _visible_to(caller: Caller | None) -> Callable[[str], bool]:
    """Whose traces: of the models that a key may use, and of none where it may not use all."""

    def is_visible(model: str) -> bool:
        if caller is None or caller.key.models is None:
            return True
        return bool(model) and caller.may_use(name_in(model))

    return is_visible

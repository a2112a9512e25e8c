"""The rows of routes, and from method and path to one of them. Paths are matched as they are on the
wire, names decoded."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import web

from trivet.backends.api.naming import name_in
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.http.admission import Admission
from trivet.server.http.answers import NO_HEADERS
from trivet.server.http.errors import HttpError
from trivet.server.http.operations import Operation
from trivet.server.http.sinks import Exchange
from trivet.server.models.routing import Admitted
from trivet.server.models.traffic import given_in
from trivet.server.protocol.versions import parse_version

_CACHED_PATH_CHARACTERS = 512
_CACHED_PATHS = 4096
_MODELS = "/v2/models/"


@dataclass(slots=True)
class Call:
    """One HTTP request on its way through a handler."""

    request: web.BaseRequest
    request_id: str
    model: str
    version: int | str | None
    """As the path or a header names it."""
    region: str
    admission: Admission | None = None
    """None: everybody may ask, from anywhere."""
    response: str = ""
    """The id of one that was made before, where the path has it."""
    user: str = ""
    """Whom the body names as its user, once it has been read."""
    beginning: Callable[[], str] = str
    """How the prompt begins that the body has, once it has been read; empty where it has none."""
    told: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    """See Admitted."""

    def more_headers(self) -> Mapping[str, str]:
        """What every answer to it has besides its own headers."""
        if self.admission is None:
            return self.told
        return {**self.admission.headers(), **self.told}

    def given(self, source: str) -> str | None:
        """See Client."""
        if source == "user":
            return self.user
        if source == "prefix":
            return self.beginning()
        return given_in(self.request.headers, source)

    def chose(self, admitted: Admitted) -> None:
        """Which version it gets."""
        self.told = admitted.told


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
Begin = Callable[[Exchange], None]
"""Answers a request whose body is here, by callbacks."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row: a template such as "/v2/models/{model}/infer", who answers it, and who may ask.

    `{name}` is one path segment; `{name*}` is all text up to what follows, for commands that give
    bad names an answer of their own.
    """

    method: str
    template: str
    handler: Handler
    scope: Scope
    """What it asks of a key."""
    api: Api
    """The group that --http-restricted-api names."""
    operation: Operation
    begin: Begin | None = None
    """The handler for a body that came together with its head, where nothing has to be waited for
    but the model."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names."""

    route: Route
    model: str
    version: int | str | None
    region: str
    response: str = ""


class RouteTable:
    """All routes. Remembers where recent paths led."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._rows = [(route, pattern_of(route.template)) for route in routes]
        self.routes = tuple(routes)
        self._remembered = lru_cache(maxsize=_CACHED_PATHS)(self._find)

    def find(self, method: str, raw_path: str) -> Target:
        """Raises HttpError: 404 for an unknown path, 405 for a known one with another method, and
        InvalidRequest for a version that is none."""
        path = raw_path.partition("?")[0]
        if len(path) > _CACHED_PATH_CHARACTERS:
            return self._find(method, path)
        return self._remembered(method, path)

    def _find(self, method: str, path: str) -> Target:
        path = _in_segments(_origin_form(path))
        allowed = []
        for route, pattern in self._rows:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == method:
                return _target(route, match)
            allowed.append(route.method)
        if not allowed:
            raise not_found()
        raise HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "Method Not Allowed",
            headers={"Allow": ", ".join(sorted(set(allowed)))},
        )


def not_found() -> HttpError:
    """The answer for a path that leads nowhere."""
    return HttpError(HTTPStatus.NOT_FOUND, "Not Found")


def pattern_of(template: str) -> re.Pattern[str]:
    """What paths of a route look like."""
    pattern = re.escape(template)
    pattern = re.sub(r"\\{(\w+)\\\*\\}", r"(?P<any_\1>.*)", pattern)
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", pattern), re.DOTALL)


def _target(route: Route, match: re.Match[str]) -> Target:
    names = {}
    for group, text in match.groupdict().items():
        name = _decode(text)
        if group.startswith("any_"):
            names[group.removeprefix("any_")] = name
        elif not _is_segment(name_in(name) if group == "model" else name) or not name.isprintable():
            raise not_found()
        else:
            names[group] = name
    version = parse_version(names.get("version", ""))
    get = names.get
    return Target(route, get("model", ""), version, get("region", ""), get("response", ""))


def _is_segment(name: str) -> bool:
    return name not in (".", "..") and "/" not in name


def _in_segments(path: str) -> str:
    """The path with a namespace, which is a folder, in one segment with its model's name."""
    if not path.startswith(_MODELS):
        return path
    folder, between, rest = _decoded_colons(path.removeprefix(_MODELS)).rpartition("::")
    return f"{_MODELS}{folder.replace('/', '%2F')}::{rest}" if between else path


def _decoded_colons(text: str) -> str:
    return text.replace("%3A", ":").replace("%3a", ":")


def _decode(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise not_found() from None


def _origin_form(path: str) -> str:
    """The path itself of a target that is a whole URL. Where that URL points is no matter of ours,
    and nothing is decided by it."""
    if not path.isascii():
        raise not_found()
    if path.startswith("/"):
        return path
    _, scheme_end, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if scheme_end else path

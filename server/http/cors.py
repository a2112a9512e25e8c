"""What browsers are told about pages of other sites (Fetch standard, "CORS protocol")."""

import re
from collections.abc import Mapping, Sequence

from aiohttp import web

from trivet.backends.api import InvalidConfig
from trivet.server.http.answers import Answer

_METHODS = "GET, POST, HEAD, OPTIONS"
_PREFLIGHT_AGE_S = 600
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1024}")
_EXPOSED = (
    "x-request-id, Inference-Header-Content-Length, Retry-After, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


class Cors:
    """The origins of `--http-cors-origins`. Browsers send keys in headers, never cookies."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Raises InvalidConfig for what no browser sends as an origin."""
        for origin in origins:
            _, has_scheme, host = origin.partition("://")
            if origin != "*" and (not has_scheme or not host or "/" in host):
                raise InvalidConfig(
                    f"--http-cors-origins '{origin}': an origin is scheme, host and port without "
                    "a path, as in https://example.com or http://localhost:3000; '*' is all"
                )
        self._origins = frozenset(origin.lower() for origin in origins)

    def knows(self, request: web.BaseRequest) -> bool:
        """Whether the page that asks is of an origin that is named; all of '*' are strangers."""
        return request.headers.get("Origin", "").lower() in self._origins

    def headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """What an answer carries for the page that asks; nothing for pages of strangers."""
        origin = request.headers.get("Origin")
        if origin is None or not ("*" in self._origins or origin.lower() in self._origins):
            return {}
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._origins else origin,
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }

    def preflight(self, request: web.BaseRequest) -> Answer | None:
        """The answer to a preflight; None if the request is none."""
        if "Access-Control-Request-Method" not in request.headers:
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
        }
        wanted = request.headers.get("Access-Control-Request-Headers")
        if wanted is not None and _HEADER_NAMES.fullmatch(wanted):
            headers["Access-Control-Allow-Headers"] = wanted
        return Answer(extra_headers=headers)

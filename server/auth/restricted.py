"""Groups of routes and RPCs that only requests with a certain header may use."""

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trivet.backends.api import InvalidConfig
from trivet.server.auth.scopes import ROUTE_SCOPES, RPC_SCOPES, Scope

APIS = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)
"""Triton's names. The APIs of language models are `inference`, their lists of models `metadata`."""
_PATTERNS: Sequence[tuple[str, re.Pattern[str]]] = [
    (api, re.compile(pattern))
    for api, pattern in (
        ("health", r".*/(live|ready)|/health|/ping|.*(Live|Ready)|.*Health/Check"),
        ("shared-memory", r"/v2/(system|cuda)sharedmemory/.*|.*SharedMemory(\w+)"),
        ("trace", r".*/trace/setting|.*/TraceSetting"),
        ("logging", r"/v2/logging|.*/LogSettings"),
        ("model-repository", r"/v2/repository/.*|.*/Repository(\w+)"),
        ("model-config", r".*/config|.*/ModelConfig"),
        ("statistics", r".*/stats|/load|.*/ModelStatistics"),
    )
]


def api_of(path: str, scope: Scope | None) -> str:
    """The group of a route's template, or of an RPC's full method path."""
    for api, pattern in _PATTERNS:
        if pattern.fullmatch(path):
            return api
    return "inference" if scope is Scope.INFER else "metadata"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a request must have."""

    header: str
    value: str

    def holds(self, get: Callable[[str], str | None]) -> bool:
        """Asks for the header, by its name in lower case."""
        given = get(self.header) or ""
        return hmac.compare_digest(given.encode(), self.value.encode())


class Restrictions:
    """The conditions of one protocol."""

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        self._routes = {
            route: conditions.get(api_of(route[1], scope)) for route, scope in ROUTE_SCOPES.items()
        }
        self._rpcs = {
            path: conditions.get(api_of(path, scope)) for path, scope in RPC_SCOPES.items()
        }

    @classmethod
    def parse(cls, given: Sequence[str], flag: str, prefix: str = "") -> "Restrictions | None":
        """From `API,API:HEADER=VALUE` texts; None without any. Headers have the prefix in front.

        Raises InvalidConfig naming the flag.
        """
        conditions: dict[str, Condition] = {}
        for text in given:
            apis, colon, pair = text.partition(":")
            header, equals, value = pair.partition("=")
            if not (apis and colon and header and equals and value):
                raise InvalidConfig(f"{flag} is API,API:HEADER=VALUE, such as {flag}=trace:key=abc")
            for api in apis.split(","):
                if api not in APIS:
                    raise InvalidConfig(f"{flag}: unknown API '{api}'; known are {', '.join(APIS)}")
                if api in conditions:
                    raise InvalidConfig(f"{flag}: API '{api}' is restricted twice")
                conditions[api] = Condition(prefix + header.lower(), value)
        return cls(conditions) if conditions else None

    def of_route(self, method: str, template: str) -> Condition | None:
        """What a route asks for; None: nothing."""
        return self._routes.get((method, template))

    def of_rpc(self, path: str) -> Condition | None:
        """What an RPC asks for; None: nothing."""
        return self._rpcs.get(path)

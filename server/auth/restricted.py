"""Groups of routes and RPCs that only requests with a certain header may use."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trivet.backends.api import InvalidConfig


class Api(StrEnum):
    """The group that a row of the front rooms' tables belongs to, by Triton's names. The APIs of
    language models are INFERENCE, their lists of models METADATA."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"


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

    def __init__(self, conditions: Mapping[Api, Condition]) -> None:
        self._conditions = conditions

    @classmethod
    def parse(cls, given: Sequence[str], flag: str, prefix: str = "") -> "Restrictions | None":
        """From `API,API:HEADER=VALUE` texts; None without any. Headers have the prefix in front.

        Raises InvalidConfig naming the flag.
        """
        conditions: dict[Api, Condition] = {}
        for text in given:
            apis, colon, pair = text.partition(":")
            header, equals, value = pair.partition("=")
            if not (apis and colon and header and equals and value):
                raise InvalidConfig(f"{flag} is API,API:HEADER=VALUE, such as {flag}=trace:key=abc")
            for name in apis.split(","):
                if name not in tuple(Api):
                    raise InvalidConfig(f"{flag}: unknown API '{name}'; known are {', '.join(Api)}")
                if name in conditions:
                    raise InvalidConfig(f"{flag}: API '{name}' is restricted twice")
                conditions[Api(name)] = Condition(prefix + header.lower(), value)
        return cls(conditions) if conditions else None

    def of(self, api: Api) -> Condition | None:
        """What the routes and RPCs of an API ask for; None: nothing."""
        return self._conditions.get(api)

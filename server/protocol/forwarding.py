"""Headers that go on to models as request parameters, where the operator says which."""

import re
from collections.abc import Iterable

from trivet.backends.api import InferRequest, InvalidConfig, InvalidRequest
from trivet.backends.api.value import changed
from trivet.server.protocol.parameters import RESERVED_PREFIX

_SECRETS = frozenset({"authorization", "proxy-authorization", "x-api-key", "cookie"})
"""Never forwarded: they let their holder in here, which is no matter of models."""
_RESERVED = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
    | {"binary_data_output"}
)
_CASE_SENSITIVE = "(?-i)"


class Forwarding:
    """The names that one protocol's pattern allows."""

    def __init__(self, pattern: str, flag: str) -> None:
        """Names match as a whole, in any case unless the pattern begins with `(?-i)`, as Triton's
        do. Raises InvalidConfig naming the flag."""
        text = pattern.removeprefix(_CASE_SENSITIVE)
        try:
            self._pattern = re.compile(text, re.IGNORECASE if text == pattern else 0)
        except re.error as error:
            raise InvalidConfig(f"{flag}: '{pattern}' is no regular expression: {error}") from None

    def added(self, request: InferRequest, headers: Iterable[tuple[str, str]]) -> InferRequest:
        """The request with the matching headers as text parameters; one that the client set itself
        under the same name gives way.

        Raises InvalidRequest for a header whose name means something as a parameter.
        """
        found = {name: value for name, value in headers if self._matches(name)}
        if not found:
            return request
        return changed(request, parameters={**request.parameters, **found})

    def _matches(self, name: str) -> bool:
        if self._pattern.fullmatch(name) is None or name.lower() in _SECRETS:
            return False
        if name.lower() in _RESERVED or name.lower().startswith(RESERVED_PREFIX):
            raise InvalidRequest(
                f"header '{name[:64]}' cannot be forwarded: a request parameter of that name has a "
                "meaning of its own"
            )
        return True


def forwarding(pattern: str, flag: str) -> Forwarding | None:
    """None: nothing is forwarded. Raises InvalidConfig."""
    return Forwarding(pattern, flag) if pattern else None

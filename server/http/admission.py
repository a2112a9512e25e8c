"""What is known of a request before its handler sees it: the caller and the page it comes from."""

from collections.abc import Mapping

from trivet.server.auth.caller import Caller


class Admission:
    """Of one request. Made by the gate."""

    __slots__ = ("_cors", "caller", "has_known_host", "has_known_origin")

    def __init__(
        self, cors: Mapping[str, str], *, has_known_origin: bool, has_known_host: bool
    ) -> None:
        self._cors = cors
        self.has_known_origin = has_known_origin
        """Whether --http-cors-origins names the page that it comes from."""
        self.has_known_host = has_known_host
        """Whether --http-allowed-hosts names its host."""
        self.caller: Caller | None = None
        """Set once the caller has shown a key."""

    @property
    def may_be_read(self) -> bool:
        """Whether the answers are for the page that it comes from."""
        return bool(self._cors)

    def headers(self) -> Mapping[str, str]:
        """What every answer tells, as it is now."""
        caller = self.caller
        if caller is None or caller.allowance is None:
            return self._cors
        return {**self._cors, **caller.allowance.headers()}

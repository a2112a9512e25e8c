"""The keys in use: finds a caller by its key, and follows the file while the server runs."""

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from trivet.backends.api import InvalidConfig, storage_fault
from trivet.server.auth.caller import Caller
from trivet.server.auth.errors import PermissionDenied, Unauthenticated
from trivet.server.auth.keys import MAX_SECRET_CHARACTERS, Key, digest_of, read_keys
from trivet.server.auth.limits import NO_LIMITS, Allowance, whole_day_s
from trivet.server.auth.scopes import Scope
from trivet.server.logs.outage import Outage

_log = logging.getLogger(__name__)
_NO_KEY = (
    "this server asks for a key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'; the "
    "server's operator makes keys with `trivet keys create`"
)
_WRONG_KEY = "Incorrect API key provided; the server does not know it (any more)"
_BEARER = "bearer "


class Keyring:
    """All keys of one file. Owned by the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        # A date of expiry is wall clock time by its meaning.
        wall_clock: Callable[[], float] = time.time,
        day_lasts_s: Callable[[], float] = whole_day_s,
    ) -> None:
        """Raises InvalidConfig."""
        self._day_lasts_s = day_lasts_s
        self.path = path
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._callers: dict[bytes, Caller] = {}
        self._outage = Outage(monotonic)
        self._put(read_keys(path))

    def reload(self) -> bool:
        """Takes the file as it is now; a broken one is told to the log, and the old keys stay.

        Returns False where the disk is at fault: the file must be read again."""
        try:
            keys = read_keys(self.path)
        except InvalidConfig as error:
            is_passing = bool(storage_fault(error))
            if not is_passing or self._outage.goes_on():
                _log.error("%s; the keys read before stay in use", error.message)
            return not is_passing
        self._outage.ends()
        self._put(keys)
        _log.info("%d key(s) read from %s", len(keys), self.path)
        return True

    @property
    def has_budgets(self) -> bool:
        """Whether what requests cost is limited for any key."""
        return any(each.key.limits.cost_per_day for each in self._callers.values())

    def allowances(self) -> dict[str, Allowance]:
        """Those of the keys that have limits, by the keys' names."""
        return {
            each.key.name: each.allowance
            for each in self._callers.values()
            if each.allowance is not None
        }

    def admit(self, secret: str | None, scope: Scope) -> Caller:
        """The caller, if its key is known and allows the scope, and one request is left of it.

        Raises Unauthenticated, PermissionDenied, RateLimited.
        """
        caller = self.allowed(secret, scope)
        if caller.allowance is not None:
            caller.allowance.take_request()
        return caller

    def allowed(self, secret: str | None, scope: Scope) -> Caller:
        """The same without counting a request."""
        caller = self._find(secret)
        if scope is not Scope.ANY and scope not in caller.key.scopes:
            raise PermissionDenied(
                f"key '{caller.key.name}' lacks the scope '{scope}'; it has "
                f"{', '.join(sorted(caller.key.scopes))}"
            )
        return caller

    def _find(self, secret: str | None) -> Caller:
        if not secret:
            raise Unauthenticated(_NO_KEY)
        if len(secret) > MAX_SECRET_CHARACTERS:
            raise Unauthenticated(_WRONG_KEY)
        digest = digest_of(secret)
        # What the time of the look-up tells is about a hash, of which nobody finds the key.
        caller = self._callers.get(digest)
        if caller is None or not hmac.compare_digest(caller.key.digest, digest):
            raise Unauthenticated(_WRONG_KEY)
        expires_at_s = caller.key.expires_at_s
        if expires_at_s is not None and self._wall_clock() >= expires_at_s:
            raise Unauthenticated(f"key '{caller.key.name}' has expired")
        return caller

    def _put(self, keys: dict[str, Key]) -> None:
        known = {caller.key.name: caller.allowance for caller in self._callers.values()}
        self._callers = {
            key.digest: Caller(key, self._allowance(key, known.get(key.name)))
            for key in keys.values()
        }

    def _allowance(self, key: Key, known: Allowance | None) -> Allowance | None:
        """What was used up stays so when the file is read again."""
        if key.limits == NO_LIMITS:
            return None
        if known is not None and known.limits == key.limits:
            return known
        return Allowance(key.name, key.limits, self._monotonic, self._day_lasts_s)


def secret_in(authorization: str | None, api_key: str | None) -> str | None:
    """The key of a request, from its two headers; the first counts where it is a bearer's."""
    if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return api_key

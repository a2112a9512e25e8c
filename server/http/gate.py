"""Who may come in over HTTP, from where: hosts, pages of other sites, keys and scopes."""

from http import HTTPStatus

from aiohttp import web

from trivet.backends.api import ServingError
from trivet.server.auth.caller import NOBODY, current_caller
from trivet.server.auth.errors import Unauthenticated
from trivet.server.auth.keyring import Keyring, secret_in
from trivet.server.auth.restricted import Api, Restrictions
from trivet.server.auth.scopes import Scope
from trivet.server.http.admission import Admission
from trivet.server.http.answers import NO_HEADERS, Answer
from trivet.server.http.cors import Cors
from trivet.server.http.errors import HttpError
from trivet.server.http.hosts import Hosts
from trivet.server.http.refusal import refusal
from trivet.server.http.routes import Route


class Gate:
    """Stands in the door, before the handlers. Owned by the event loop."""

    def __init__(
        self,
        keyring: Keyring | None,
        hosts: Hosts | None,
        cors: Cors | None,
        restrictions: Restrictions | None = None,
    ) -> None:
        """None: not checked, and for `cors`: pages of other sites get no permission."""
        self._restrictions = restrictions
        self._keyring = keyring
        self._hosts = hosts
        self._cors = cors

    def meet(self, request: web.BaseRequest) -> Admission:
        """What its headers tell of a request; refuses nothing."""
        is_known = self._hosts is not None and self._hosts.allow(request.headers.get("Host"))
        if self._cors is None or "Origin" not in request.headers:
            return Admission(NO_HEADERS, has_known_origin=False, has_known_host=is_known)
        return Admission(
            self._cors.headers(request),
            has_known_origin=self._cors.knows(request),
            has_known_host=is_known,
        )

    def preflight(self, request: web.BaseRequest, admission: Admission) -> Answer | None:
        """The answer to a browser that asks whether a page may send something; None: it is not
        that, or the page may not."""
        if self._cors is None or request.method != "OPTIONS" or not admission.may_be_read:
            return None
        return self._cors.preflight(request)

    def admit(self, request: web.BaseRequest, route: Route, admission: Admission) -> Answer | None:
        """Sets the caller of what follows, or gives the refusal. Raises HttpError (403) for a host
        that is none of ours, and for an API that the request may not use."""
        if self._restrictions is not None:
            _check_restriction(self._restrictions, request, route.api)
        if route.scope is Scope.OPEN:
            current_caller.set(None if self._keyring is None else NOBODY)
            return None
        if self._hosts is not None and not admission.has_known_host:
            raise HttpError(
                HTTPStatus.FORBIDDEN,
                "this server is not known by the name in the Host header; --http-allowed-hosts "
                "lists its names",
                closes=True,
            )
        if self._keyring is None:
            return None
        try:
            self._check(self._keyring, request, route.scope, admission)
        except ServingError as error:
            return refusal(error, route, request)
        current_caller.set(admission.caller)
        return None

    def _check(
        self, keyring: Keyring, request: web.BaseRequest, scope: Scope, admission: Admission
    ) -> None:
        admission.caller = caller = keyring.allowed(_secret(request), scope)
        if caller.allowance is not None:
            caller.allowance.take_request()


def _check_restriction(restrictions: Restrictions, request: web.BaseRequest, api: Api) -> None:
    condition = restrictions.of(api)
    if condition is not None and not condition.holds(request.headers.get):
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"This API is restricted, expecting header '{condition.header}'",
            closes=not request.content.is_eof(),
        )


def _secret(request: web.BaseRequest) -> str | None:
    headers = request.headers
    given = [headers.getall(name, ()) for name in ("Authorization", "x-api-key")]
    if any(len(values) > 1 for values in given):
        # What one hop takes for the first another may take for the last.
        raise Unauthenticated("the Authorization or x-api-key header is there more than once")
    authorization, api_key = (values[0] if values else None for values in given)
    return secret_in(authorization, api_key)

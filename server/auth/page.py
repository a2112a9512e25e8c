"""Asks for a key before the pages of an aiohttp application, as the metrics port has one."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from trivet.backends.api import ServingError
from trivet.server.auth.errors import PermissionDenied, RateLimited
from trivet.server.auth.keyring import Keyring, secret_in
from trivet.server.auth.scopes import Scope


def guard(keyring: Keyring, scope: Scope) -> Middleware:
    """A middleware that lets those in whose key has the scope, which all pages have in common."""

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.route.resource is None:
            return await handler(request)
        headers = request.headers
        secret = secret_in(headers.get("Authorization"), headers.get("x-api-key"))
        try:
            keyring.admit(secret, scope)
        except PermissionDenied as error:
            return _refusal(403, error)
        except RateLimited as error:
            return _refusal(429, error)
        except ServingError as error:
            return _refusal(401, error, {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return ask


def _refusal(
    status: int, error: ServingError, headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response({"error": error.message}, status=status, headers=headers)

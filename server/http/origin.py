"""Who may change the server: not a page of another site, through the browser of somebody here."""

from http import HTTPStatus

from aiohttp import web

from trivet.server.http.errors import HttpError


def refuse_other_sites(request: web.BaseRequest) -> None:
    """Raises HttpError (403) for a request that a browser sends on behalf of another site's page.

    Browsers say so in Origin, also where the page may not read the answer; other clients send none.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return
    _, _, host = origin.partition("://")
    if host.lower() != request.headers.get("Host", "").lower():
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"a page of another site ('{origin[:64]}') may not change this server",
        )

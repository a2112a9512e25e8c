"""Who may change the server: not a page of another site, through the browser of somebody here."""

import ipaddress
from http import HTTPStatus

from trivet.server.http.errors import HttpError
from trivet.server.http.hosts import host_of
from trivet.server.http.routes import Call


def refuse_other_sites(call: Call) -> None:
    """Raises HttpError (403) for a request that a browser sends on behalf of another site's page.

    Browsers say so in Origin, also where the page may not read the answer; other clients send none.
    A page whose name was rebound to us looks like our own, but for the name.
    """
    headers = call.request.headers
    origin = headers.get("Origin")
    if origin is None or (call.admission is not None and call.admission.has_known_origin):
        return
    host = headers.get("Host", "")
    if origin.partition("://")[2].lower() != host.lower():
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"a page of another site ('{origin[:64]}') may not change this server",
        )
    if not _is_our_own(host_of(host)) and not (
        call.admission is not None and call.admission.has_known_host
    ):
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"a page of '{origin[:64]}' may not change this server, which is not known by that "
            "name; name it in --http-allowed-hosts",
        )


def refuse_strange_hosts(call: Call) -> None:
    """Raises HttpError (403) for a request by a name that is not known to be ours: of a page whose
    name was rebound to us, which may read what it is answered."""
    host = call.request.headers.get("Host", "")
    is_known = call.admission is not None and call.admission.has_known_host
    if not is_known and not _is_our_own(host_of(host)):
        raise HttpError(
            HTTPStatus.FORBIDDEN,
            f"the console is not there for '{host[:64]}', by which name this server is not known; "
            "name it in --http-allowed-hosts",
        )


def _is_our_own(host: str) -> bool:
    """Whether nobody else can have given it to a page: an address, or this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True

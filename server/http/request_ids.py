"""Names of requests, for logs, errors and the header x-request-id."""

import itertools
import secrets
from collections.abc import Callable, Mapping

from multidict import istr

from trivet.server.http.limits import MAX_REQUEST_ID_BYTES

_REQUEST_ID = istr("x-request-id")


class RequestIds:
    """Names for requests that come without one: unique to this process and its requests."""

    def __init__(self) -> None:
        name = f"{secrets.token_hex(4)}-{{:x}}".format
        self.make: Callable[[], str] = map(name, itertools.count(1)).__next__
        """A new name. Without a line of Python, since every request asks for one."""

    @staticmethod
    def given(headers: Mapping[str, str]) -> str:
        """The client's own name for the request where it can go into a log line and a header; else
        nothing."""
        given = headers.get(_REQUEST_ID)
        if given and len(given) <= MAX_REQUEST_ID_BYTES and given.isascii() and given.isprintable():
            return given
        return ""

    def of(self, headers: Mapping[str, str]) -> str:
        """The client's name for it, or a new one."""
        return self.given(headers) or self.make()

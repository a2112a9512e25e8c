"""The names that the server has: a page whose name was rebound to us calls us by another."""

from collections.abc import Sequence
from fnmatch import fnmatchcase


class Hosts:
    """The names of `--http-allowed-hosts`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(name.lower().strip("[]") for name in names)

    def allow(self, host_header: str | None) -> bool:
        """Whether a Host header, perhaps with a port, holds one of them."""
        host = host_of(host_header or "")
        return any(fnmatchcase(host, name) for name in self._names)


def host_of(host_header: str) -> str:
    """A Host header's name or address, in lower case and without the port."""
    text = host_header.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]

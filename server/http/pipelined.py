"""Where requests lie in bytes of several, as a parser has found them. Pure."""

from collections.abc import Sequence

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage

from trivet.server.http.chunks import ChunkSizes

HEAD_END = b"\r\n\r\n"


def begin_of_body(data: bytes, requests: Sequence[RawRequestMessage]) -> int:
    """Where in these bytes, which begin with the first request's head, the last one's body does."""
    place = _end_of_head(data, 0)
    for request in requests[:-1]:
        place = _end_of_head(data, place + _length_of_body(data[place:], request))
    return place


def owed_behind(data: bytes, request: RawRequestMessage) -> int:
    """How many bytes of its body have not come with these, which begin with its head; below 0 where
    more has come, or where its length is not given."""
    if request.chunked or request.upgrade:
        return -1
    length = _length_of_body(b"", request)
    owed = length + data.find(HEAD_END) + len(HEAD_END) - len(data)
    return owed if owed <= length else -1


def _end_of_head(data: bytes, place: int) -> int:
    while data[place : place + 1] in (b"\r", b"\n"):
        place += 1  # Empty lines before a head are passed over.
    end = data.find(HEAD_END, place)
    return len(data) if end < 0 else end + len(HEAD_END)


def _length_of_body(data: bytes, request: RawRequestMessage) -> int:
    if request.chunked:
        return len(data) - len(ChunkSizes().behind(data))
    return int(request.headers.get(hdrs.CONTENT_LENGTH, 0))

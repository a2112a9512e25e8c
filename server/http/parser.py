"""aiohttp's parser of requests, made as a connection of ours needs it."""

import asyncio

from aiohttp import web
from aiohttp.http import HttpRequestParser

from trivet.server.http.limits import HttpLimits

_READ_BUFFER_BYTES = 64 * 1024


def new_parser(
    connection: web.RequestHandler, loop: asyncio.AbstractEventLoop, limits: HttpLimits
) -> HttpRequestParser:
    """A parser as aiohttp makes one for a connection."""
    return HttpRequestParser(
        connection,
        loop,
        _READ_BUFFER_BYTES,
        max_line_size=limits.max_header_line_bytes,
        max_field_size=limits.max_header_line_bytes,
        max_headers=limits.max_headers,
        payload_exception=web.RequestPayloadError,
        auto_decompress=False,
    )

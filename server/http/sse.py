"""Server-sent events: one `data:` line for each event, written as it comes."""

from collections.abc import Mapping

from aiohttp import web

from trivet.server.http.answers import NO_HEADERS
from trivet.server.http.connection import Connection
from trivet.server.http.routes import Call


class EventStream:
    """The answer to one request, open until `close`."""

    def __init__(self, call: Call, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """`headers`: further ones."""
        self._request = call.request
        self.response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "x-request-id": call.request_id,
                **call.more_headers(),
                **headers,
            }
        )

    async def open(self) -> None:
        """Sends the head: from here on the status is 200."""
        connection = self._request.protocol
        if isinstance(connection, Connection) and connection.is_leaving:
            self.response.force_close()
        await self.response.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """One event. Waits while the client does not read; raises ConnectionError when it is
        gone. `data` must be one line."""
        await self.response.write(b"data: %b\n\n" % data)

    async def write(self, events: bytes) -> None:
        """Events that are whole already, blank lines and all; otherwise as `send`."""
        # An empty write would end a chunked answer.
        if events:
            await self.response.write(events)

    async def close(self) -> None:
        """Ends the stream."""
        await self.response.write_eof()

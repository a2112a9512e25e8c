"""Our transport with a few echoing rows, on the test's own event loop."""

from collections.abc import AsyncIterator

import pytest
from grpc_site import MIB, Site, Start, rows

from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.transport import Call


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a transport with the options given."""
    sites: list[Site] = []

    async def begin(max_message_bytes: int = 32 * MIB, **options: float) -> Site:
        log: list[str] = []
        held: list[Call] = []
        made = Http2Options(max_message_bytes, **options)  # type: ignore[arg-type]
        transport = Http2Transport(rows(log, held), host="127.0.0.1", port=0, options=made)
        site = Site(await transport.start(), transport, held, log)
        sites.append(site)
        return site

    yield begin
    for site in sites:
        for writer in site.writers:
            writer.close()
        await site.transport.drain(0)


@pytest.fixture
async def site(start: Start) -> Site:
    """One with the usual options."""
    return await start()

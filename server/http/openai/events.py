"""OpenAI's event streams: one write for all that has come, an error as the last event."""

from collections.abc import Callable, Sequence

import orjson
from aiohttp import web

from trivet.backends.api import Chunk, ServingError
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.errors import error_document
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream

DONE = b"data: [DONE]\n\n"


def event(document: object) -> bytes:
    """One event."""
    return b"data: %b\n\n" % orjson.dumps(document)


async def stream(
    call: Call,
    outputs: Outputs,
    write: Callable[[Sequence[tuple[int, Chunk]]], bytes],
    end: Callable[[], bytes],
) -> web.StreamResponse:
    """Answers with events: what `write` makes of chunks, and `end` after them.

    An error before the first chunk has a status of its own; a later one is the last event.
    """
    events = EventStream(call.request, call.request_id)
    try:
        chunks = await outputs.next()
        await events.open()
        try:
            while chunks:
                await events.write(write(chunks))
                chunks = await outputs.next()
            await events.write(end() + DONE)
        except ServingError as error:
            await events.write(event(error_document(error)))
        await events.close()
    finally:
        outputs.close()
    return events.response

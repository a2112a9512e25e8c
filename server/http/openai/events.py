"""OpenAI's event streams: one write for all that has come, an error as the last event."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson
from aiohttp import web

from trivet.backends.api import Chunk, ServingError
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.errors import error_document
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def event(document: object) -> bytes:
    """One event."""
    return b"data: %b\n\n" % orjson.dumps(document)


class StreamWriter(Protocol):
    """Makes events of chunks."""

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks, each with its choice's index."""

    def end(self) -> bytes:
        """What follows the last chunk."""


class EventWriter:
    """Writes events that begin alike; what does not change is written once."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = b"data: %b" % orjson.dumps(head)[:-1]
        self._before = self._head + b',"choices":['
        self._texts: dict[int, bytes] = {}

    def text(self, index: int, before: bytes, text: str, after: bytes) -> bytes:
        """The event of a choice that has nothing but text; `before` and `after` are the JSON
        around it and the same each time."""
        start = self._texts.get(index)
        if start is None:
            start = self._texts[index] = b'%b{"index":%d,%b' % (self._before, index, before)
        return b"%b%b%b]}\n\n" % (start, orjson.dumps(text), after)

    def choice(self, choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> bytes:
        """The event of one choice."""
        if usage is None:
            return b"%b%b]}\n\n" % (self._before, orjson.dumps(choice))
        counted = orjson.dumps(usage)
        return b'%b%b],"usage":%b}\n\n' % (self._before, orjson.dumps(choice), counted)

    def last(self, usage: Mapping[str, Any]) -> bytes:
        """The event of the whole answer's token counts."""
        return b'%b],"usage":%b}\n\n' % (self._before, orjson.dumps(usage))


async def stream(
    call: Call, outputs: Outputs, writer: StreamWriter, keep_alive_s: float
) -> web.StreamResponse:
    """Answers with events: what the writer makes of chunks.

    An error before the first chunk has a status of its own; a later one is the last event.
    """
    events = EventStream(call)
    try:
        if await pump(events, outputs, writer.write, error_document, keep_alive_s):
            await events.write(writer.end() + DONE)
        await events.close()
    finally:
        outputs.close()
    return events.response


async def pump(
    events: EventStream,
    outputs: Outputs,
    write: Callable[[Sequence[tuple[int, Chunk]]], bytes],
    told: Callable[[ServingError], object],
    keep_alive_s: float,
) -> bool:
    """Opens the stream and writes all that comes; False if it ended with an error, `told` in its
    last event. Raises an error that comes before anything was written."""
    with outputs.nudged(keep_alive_s):
        chunks = await outputs.next()
        await events.open()
        try:
            while chunks or outputs.is_open:
                await events.write(write(chunks) if chunks else KEEP_ALIVE)
                chunks = await outputs.next()
        except ServingError as error:
            await events.write(event(told(error)))
            return False
    return True

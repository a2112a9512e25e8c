"""OpenAI's event streams: one write for all that has come, an error as the last event."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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


def named_event(name: str, document: object) -> bytes:
    """One event of an API that names its events beside their data."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(document))


def error_event(error: ServingError) -> bytes:
    """The event that ends a stream with an error."""
    return event(error_document(error))


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

    def prompt(self, choice: Mapping[str, Any], token_ids: Sequence[int]) -> bytes:
        """The event of one choice with the tokens of the prompt that it follows."""
        told = (self._before, orjson.dumps(choice), orjson.dumps(token_ids))
        return b'%b%b],"prompt_token_ids":%b}\n\n' % told

    def choice(self, choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> bytes:
        """The event of one choice."""
        if usage is None:
            return b"%b%b]}\n\n" % (self._before, orjson.dumps(choice))
        counted = orjson.dumps(usage)
        return b'%b%b],"usage":%b}\n\n' % (self._before, orjson.dumps(choice), counted)

    def last(self, usage: Mapping[str, Any]) -> bytes:
        """The event of the whole answer's token counts."""
        return b'%b],"usage":%b}\n\n' % (self._before, orjson.dumps(usage))


class Merging:
    """Hands a writer's choices their first chunk at once and later ones some tokens at a time."""

    def __init__(self, writer: StreamWriter, interval: int) -> None:
        """`interval`: tokens for each event; 1: as they come."""
        self._writer = writer
        self._interval = interval
        self._held: dict[int, Chunk | None] = {}

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks."""
        if self._interval == 1:
            return self._writer.write(chunks)
        return self._writer.write([each for pair in chunks if (each := self._merged(*pair))])

    def end(self) -> bytes:
        """What follows the last chunk."""
        return self._writer.end()

    def _merged(self, index: int, chunk: Chunk) -> tuple[int, Chunk] | None:
        held = self._held.get(index)
        is_first = index not in self._held
        if held is not None:
            chunk = replace(
                chunk,
                text=held.text + chunk.text,
                token_ids=held.token_ids + chunk.token_ids,
                logprobs=held.logprobs + chunk.logprobs,
            )
        is_due = is_first or chunk.finish or len(chunk.token_ids) >= self._interval
        self._held[index] = None if is_due else chunk
        return (index, chunk) if is_due else None


async def stream(
    call: Call, outputs: Outputs, writer: StreamWriter, keep_alive_s: float
) -> web.StreamResponse:
    """Answers with events: what the writer makes of chunks.

    An error before the first chunk has a status of its own; a later one is the last event.
    """
    events = EventStream(call)
    try:
        if await pump(events, outputs, writer.write, error_event, keep_alive_s):
            await events.write(writer.end() + DONE)
        await events.close()
    finally:
        outputs.close()
    return events.response


async def pump(
    events: EventStream,
    outputs: Outputs,
    write: Callable[[Sequence[tuple[int, Chunk]]], bytes],
    told: Callable[[ServingError], bytes],
    keep_alive_s: float,
    keep_alive: bytes = KEEP_ALIVE,
) -> bool:
    """Opens the stream and writes all that comes, and `keep_alive` while nothing does or all of it
    is held back; False if it ended with an error, of which `told` makes its last event. Raises an
    error that comes before anything was written."""
    with outputs.nudged(keep_alive_s):
        chunks = await outputs.next()
        await events.open()
        written_s = time.monotonic()
        try:
            while chunks or outputs.is_open:
                data = write(chunks) if chunks else keep_alive
                now_s = time.monotonic()
                # A call's arguments, say, are held back until they are whole.
                if not data and now_s - written_s >= keep_alive_s:
                    data = keep_alive
                if data:
                    written_s = now_s
                    await events.write(data)
                chunks = await outputs.next()
        except ServingError as error:
            await events.write(told(error))
            return False
    return True

"""/v1/responses and what is below it."""

from collections.abc import Sequence

import orjson
from aiohttp import web

from trivet.backends.api import Chunk, InvalidRequest, ServingError, Unavailable
from trivet.server.core import Generators
from trivet.server.http.answers import Answer, json_answer
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.events import KEEP_ALIVE, pump
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.responses.asking import Asking
from trivet.server.http.openai.responses.background import Background, Backgrounds
from trivet.server.http.openai.responses.chat_form import renamed, under_own_names
from trivet.server.http.openai.responses.fields import FORMS, AskedFields, ResponseFields
from trivet.server.http.openai.responses.listing import number_in, page_of
from trivet.server.http.openai.responses.store import Record, ResponseStore
from trivet.server.http.openai.responses.telling import Telling
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream
from trivet.server.tracing.arrival import current_arrival

_MOST_EVENTS = 2**30


class Responses:
    """The handlers, and the responses that are kept. Owned by the event loop."""

    def __init__(self, core: Generators, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits
        self._store = ResponseStore(limits.max_stored_responses, limits.max_stored_response_bytes)
        self._backgrounds = Backgrounds()

    def leave(self, timeout_s: float) -> None:
        """No more requests come."""
        self._backgrounds.leave(timeout_s)

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._backgrounds.close()

    async def create(self, call: Call) -> web.StreamResponse:
        """One answer, a stream of events, or the beginning of what goes on without its client."""
        asked = parse(ResponseFields, await read_json_body(call.request, self._limits), FORMS)
        asked.check()
        call.user = asked.user or ""
        with under_own_names():
            if asked.background:
                return await self._begin(call, asked)
            asking = self._asking(call, asked)
            await asking.start()
            telling = asking.telling(asked, is_kept=self._keeps(asked))
            if asked.stream:
                return await self._stream(call, asked, asking, telling)
            telling.take(await asking.conversation.outputs.all())
            return Answer((self._ended(asked, asking, telling),))

    async def count(self, call: Call) -> web.StreamResponse:
        """The tokens of an input."""
        asked = parse(AskedFields, await read_json_body(call.request, self._limits), FORMS)
        asked.check()
        with under_own_names():
            count = await self._asking(call, asked).read()
        return json_answer({"object": "response.input_tokens", "input_tokens": count})

    async def retrieve(self, call: Call) -> web.StreamResponse:
        """A response as it is now, or its events."""
        record = self._record(call)
        query = call.request.query
        if query.get("stream", "false").lower() not in ("true", "1"):
            return Answer((record.now(),))
        after = query.get("starting_after")
        number = -1 if after is None else number_in("starting_after", after, 0, _MOST_EVENTS)
        background = record.background
        if background is None or not background.has_events:
            raise InvalidRequest(
                "stream: only the events of responses that were made with background=true and "
                "stream=true are kept"
            )
        return await self._follow(call, background, number)

    async def delete(self, call: Call) -> web.StreamResponse:
        """Keeps a response no more; ends it if it runs."""
        record = self._record(call)
        self._store.drop(record)
        if record.background is not None:
            record.background.cancel()
        return json_answer({"id": record.id, "object": "response", "deleted": True})

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Ends a response that runs in the background; the response as it is then."""
        record = self._record(call)
        if record.background is None:
            raise InvalidRequest(
                "response_id: only responses that were made with background=true can be cancelled; "
                "others end when their client goes away"
            )
        record.background.cancel()
        return Answer((record.now(),))

    async def input_items(self, call: Call) -> web.StreamResponse:
        """What a response was given, itself: not what it went on from."""
        record, query = self._record(call), call.request.query
        items = orjson.loads(record.input)
        page = page_of(items, query.get("limit"), query.get("order"), query.get("after"))
        return json_answer(page)

    # -- on the way ----------------------------------------------------------------------------

    def _asking(self, call: Call, asked: AskedFields) -> Asking:
        return Asking(asked, self._core, self._store, _owner(call), call)

    def _record(self, call: Call) -> Record:
        return self._store.get(call.response, _owner(call))

    def _keeps(self, asked: ResponseFields) -> bool:
        return asked.is_kept and self._store.keeps

    def _ended(self, asked: ResponseFields, asking: Asking, telling: Telling) -> bytes:
        """The document of one that has ended, which is kept from now on."""
        document = telling.document()
        body = orjson.dumps(document)
        if self._keeps(asked):
            record = asking.record()
            record.document = body
            record.item_ids += tuple(item["id"] for item in document["output"])
            self._store.put(record)
        return body

    async def _stream(
        self, call: Call, asked: ResponseFields, asking: Asking, telling: Telling
    ) -> web.StreamResponse:
        outputs, events = asking.conversation.outputs, EventStream(call)

        def failed(error: ServingError) -> bytes:
            told = b"".join(telling.fail(renamed(error)))
            self._ended(asked, asking, telling)
            return told

        def write(chunks: Sequence[tuple[int, Chunk]]) -> bytes:
            told = b"".join(telling.take(chunks))
            if telling.is_over:
                # Before its client hears of the end and goes on from it.
                self._ended(asked, asking, telling)
            return told

        try:
            await pump(events, outputs, write, failed, self._limits.event_keep_alive_s)
            await events.close()
        finally:
            outputs.close()
        return events.response

    # -- in the background ---------------------------------------------------------------------

    async def _begin(self, call: Call, asked: ResponseFields) -> web.StreamResponse:
        if not self._store.keeps:
            raise Unavailable("background: this server keeps no responses (--response-store-count)")
        # Its trace would end with this request.
        current_arrival.set(None)
        asking = self._asking(call, asked)
        await asking.start()
        outputs = asking.conversation.outputs
        if outputs.error is not None:
            # Refused at once: that is for this request to say.
            raise outputs.error
        record = asking.record()
        background = Background(asking.telling(asked, is_kept=True), outputs)
        record.background = background
        self._keep_running(record, background)
        if asked.stream:
            return await self._follow(call, background, -1)
        return Answer((record.now(),))

    def _keep_running(self, record: Record, background: Background) -> None:
        try:
            self._store.put(record)
        except Unavailable:
            background.cancel()
            raise
        self._backgrounds.add(background)
        background.when_grown(lambda: self._make_room(record, background))
        background.when_done(lambda: self._settle(record, background))

    def _make_room(self, record: Record, background: Background) -> None:
        try:
            self._store.grow(record)
        except Unavailable as error:
            background.outgrow(error)

    def _settle(self, record: Record, background: Background) -> None:
        """It has ended: its size is known."""
        document = background.document()
        record.document = orjson.dumps(document)
        record.item_ids += tuple(item["id"] for item in document["output"])
        background.release()
        if self._store.has(record):
            self._store.put(record)

    async def _follow(self, call: Call, background: Background, number: int) -> web.StreamResponse:
        """The events behind one of that number, until the last."""
        events, wait_s = EventStream(call), self._limits.event_keep_alive_s
        with background.reading():
            await events.open()
            while True:
                found, number = await background.after(number, wait_s)
                if not found and background.is_over:
                    break
                await events.write(b"".join(found) or KEEP_ALIVE)
            await events.close()
        return events.response


def _owner(call: Call) -> bytes:
    """Whose a response is: the key's, itself."""
    caller = None if call.admission is None else call.admission.caller
    return b"" if caller is None else caller.key.digest

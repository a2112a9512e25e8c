"""POST /generate, /generate_stream and /: prompts in, text out."""

from functools import partial

import orjson
from aiohttp import web

from trivet.backends.api import ServingError
from trivet.server.core import Generators
from trivet.server.http.answers import Answer
from trivet.server.http.beginnings import of_prompt
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.events import event, pump
from trivet.server.http.openai.fields import parse
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream
from trivet.server.http.tgi.errors import error_document
from trivet.server.http.tgi.fields import GenerateFields
from trivet.server.http.tgi.generation import Generation
from trivet.server.http.tgi.models import choose


class TgiGenerate:
    """The handlers."""

    def __init__(self, core: Generators, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def whole(self, call: Call) -> web.StreamResponse:
        """One document."""
        return await self._whole(call, await self._fields(call), as_list=False)

    async def stream(self, call: Call) -> web.StreamResponse:
        """A stream of events."""
        return await self._stream(call, await self._fields(call))

    async def either(self, call: Call, body: bytes) -> web.StreamResponse:
        """A list of one document, or a stream, as the body says."""
        fields = parse(GenerateFields, body)
        if fields.stream:
            return await self._stream(call, fields)
        return await self._whole(call, fields, as_list=True)

    async def _fields(self, call: Call) -> GenerateFields:
        return parse(GenerateFields, await read_json_body(call.request, self._limits))

    def _generation(self, call: Call, fields: GenerateFields, *, is_stream: bool) -> Generation:
        parameters = fields.check(is_stream=is_stream)
        call.beginning = partial(of_prompt, fields.inputs)
        _, generator = choose(self._core, call, fields.model, parameters.adapter_id or "")
        return Generation(call.request_id, fields.inputs, parameters, generator)

    async def _whole(
        self, call: Call, fields: GenerateFields, *, as_list: bool
    ) -> web.StreamResponse:
        generation = self._generation(call, fields, is_stream=False)
        parameters = fields.parameters
        await generation.start(scored=parameters is not None and bool(parameters.details))
        document = generation.document(await generation.outputs.all())
        body = orjson.dumps([document] if as_list else document)
        return Answer((body,), extra_headers=generation.headers())

    async def _stream(self, call: Call, fields: GenerateFields) -> web.StreamResponse:
        """An error is the one event, or the last, of a stream of status 200, as in TGI; but what is
        wrong with the request itself is told by the status too."""
        generation = self._generation(call, fields, is_stream=True)
        await generation.start(scored=True)
        outputs = generation.outputs
        events = EventStream(call)
        events.response.headers.update({**generation.first_headers(), "X-Accel-Buffering": "no"})
        try:
            keep_alive_s = self._limits.event_keep_alive_s
            await pump(events, outputs, generation.write, _error_event, keep_alive_s)
            await events.close()
        finally:
            outputs.close()
        return events.response


def _error_event(error: ServingError) -> bytes:
    return event(error_document(error))

"""POST /v1/messages and /v1/messages/count_tokens."""

import uuid
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from trivet.backends.api import Generator, ServingError
from trivet.server.core import Generators
from trivet.server.http.anthropic.answer import MessageAnswer
from trivet.server.http.anthropic.chats import chat_of
from trivet.server.http.anthropic.errors import NamedAnswer, error_document
from trivet.server.http.anthropic.fields import CountFields, MessagesFields
from trivet.server.http.beginnings import of_messages
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.events import named_event, pump
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.prompts import named_generator
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream

_FORMS: dict[int | str, str] = {"system": "a text or a list of text blocks"}
_THOUGHTLESS = ("", "none")
PING = named_event("ping", {"type": "ping"})


class Messages:
    """The handlers."""

    def __init__(self, core: Generators, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def create(self, call: Call) -> web.StreamResponse:
        """One message or the events that it is told by."""
        fields = parse(MessagesFields, await read_json_body(call.request, self._limits), _FORMS)
        fields.check()
        call.user = fields.user
        message_id = f"msg_{uuid.uuid4().hex}"
        conversation = self._conversation(call, fields, message_id)
        await conversation.start()
        answer = MessageAnswer(fields, conversation, message_id, call.told)
        outputs = conversation.outputs
        if fields.stream:
            return await _stream(call, outputs, answer, self._limits.event_keep_alive_s)
        return _answer(answer.document(await outputs.all()))

    async def count(self, call: Call) -> web.StreamResponse:
        """How many tokens the prompt of a message would have."""
        fields = parse(CountFields, await read_json_body(call.request, self._limits), _FORMS)
        fields.check()
        conversation = self._conversation(call, fields, "")
        await conversation.read()
        return _answer({"input_tokens": len(conversation.prompt)})

    def _conversation(self, call: Call, fields: CountFields, message_id: str) -> Conversation:
        chat = chat_of(fields)
        call.beginning = partial(of_messages, chat.messages)
        fields.model, generator = named_generator(self._core, fields.model, call)
        chat.thinking_token_budget = _budget(fields, generator)
        return Conversation(chat, generator, message_id)


def _budget(fields: CountFields, generator: Generator) -> int | None:
    """How long the model may think; a model that does not think keeps any limit."""
    if fields.thinking is None or generator.info.reasoning_parser in _THOUGHTLESS:
        return None
    return fields.thinking.budget_tokens


async def _stream(
    call: Call, outputs: Outputs, answer: MessageAnswer, keep_alive_s: float
) -> web.StreamResponse:
    """An error before the first chunk has a status of its own; a later one is the last event."""

    def told(error: ServingError) -> bytes:
        return named_event("error", error_document(error, call.request_id))

    events = EventStream(call, {"request-id": call.request_id})
    try:
        if await pump(events, outputs, answer.write, told, keep_alive_s, PING):
            await events.write(answer.end())
        await events.close()
    finally:
        outputs.close()
    return events.response


def _answer(document: dict[str, Any]) -> NamedAnswer:
    return NamedAnswer((orjson.dumps(document),))

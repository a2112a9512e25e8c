"""POST /api/chat, /api/generate, /api/embed and /api/embeddings."""

import uuid
from typing import Any

from aiohttp import web

from trivet.backends.api import Generator
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.limits import HttpLimits
from trivet.server.http.ollama.answer import Answer, chat_form, generate_form
from trivet.server.http.ollama.chats import Continuation, chat_of, chat_of_prompt
from trivet.server.http.ollama.errors import error_line
from trivet.server.http.ollama.fields import (
    ChatFields,
    EmbeddingsFields,
    EmbedFields,
    GenerateFields,
)
from trivet.server.http.ollama.names import own_name
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.chat_fields import ChatFields as SharedChat
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.embeddings import EmbeddingFields, Embeddings
from trivet.server.http.openai.encoders import Encoded
from trivet.server.http.openai.events import pump
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.prompts import named_generator
from trivet.server.http.operations import NDJSON
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream


class Ollama:
    """The handlers."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits
        self._embeddings = Embeddings(core, limits)

    async def chat(self, call: Call) -> web.StreamResponse:
        """The next message of a conversation. Without one the model is looked for, no more."""
        fields = parse(ChatFields, await read_json_body(call.request, self._limits))
        fields.check()
        generator = self._generator(call, fields.model)
        if not fields.messages:
            return json_answer(Answer(fields.model, chat_form, None, 0).end({}))
        chat = chat_of(fields)
        return await self._converse(call, fields, chat, generator, Answering(chat_form))

    async def generate(self, call: Call) -> web.StreamResponse:
        """What follows a prompt, in the model's chat form if it has one. The same without one."""
        fields = parse(GenerateFields, await read_json_body(call.request, self._limits))
        fields.check()
        generator = self._generator(call, fields.model)
        if not fields.prompt and not fields.images:
            return json_answer(Answer(fields.model, generate_form, None, 0).end({}))
        answering = Answering(generate_form)
        if not _is_plain(fields, generator):
            chat = chat_of_prompt(fields)
            return await self._converse(call, fields, chat, generator, answering)
        prompt = Continuation(fields, generator, _new_id())
        await prompt.start()
        answer = Answer(fields.model, generate_form, None, len(prompt.prompt))
        return await self._answered(call, prompt, answer, streams=fields.stream)

"""POST /api/chat, /api/generate, /api/embed and /api/embeddings."""

import uuid
from typing import Protocol

from aiohttp import web

from trivet.backends.api import Generator, InvalidRequest
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.ollama.answer import Answer, Form, chat_form, generate_form
from trivet.server.http.ollama.chats import Continuation, OllamaChat, chat_of, chat_of_prompt
from trivet.server.http.ollama.errors import error_line
from trivet.server.http.ollama.fields import (
    AskFields,
    OllamaChatFields,
    OllamaEmbeddingsFields,
    OllamaEmbedFields,
    OllamaPromptFields,
)
from trivet.server.http.ollama.names import own_name
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.embeddings import EmbeddingFields, Embeddings
from trivet.server.http.openai.events import pump
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.prompts import asked_generator
from trivet.server.http.operations import NDJSON
from trivet.server.http.routes import Call
from trivet.server.http.sse import EventStream

_STREAM_HEADERS = {"Content-Type": NDJSON}


class _Asked(Protocol):
    """What was submitted."""

    outputs: Outputs


class Ollama:
    """The handlers."""

    def __init__(self, core: Core, limits: HttpLimits, embeddings: Embeddings) -> None:
        self._core = core
        self._limits = limits
        self._embeddings = embeddings

    async def chat(self, call: Call) -> web.StreamResponse:
        """The next message of a conversation. Without one the model is looked for, no more."""
        fields = parse(OllamaChatFields, await read_json_body(call.request, self._limits))
        fields.check()
        generator = self._generator(call, fields)
        if not fields.messages:
            return json_answer(Answer(fields.model, chat_form, None, 0).end({}))
        return await self._converse(call, fields, chat_of(fields), generator, chat_form)

    async def generate(self, call: Call) -> web.StreamResponse:
        """What follows a prompt, in the model's chat form if it has one. The same without one."""
        fields = parse(OllamaPromptFields, await read_json_body(call.request, self._limits))
        fields.check()
        generator = self._generator(call, fields)
        if not fields.prompt and not fields.images:
            return json_answer(Answer(fields.model, generate_form, None, 0).end({}))
        if _is_chat(fields, generator):
            chat = chat_of_prompt(fields)
            return await self._converse(call, fields, chat, generator, generate_form)
        prompt = Continuation(fields, generator, _new_id())
        await prompt.start()
        answer = Answer(fields.model, generate_form, None, len(prompt.prompt))
        return await self._answered(call, fields, prompt, answer)

    async def embed(self, call: Call) -> web.StreamResponse:
        """The vectors of some texts."""
        fields = parse(OllamaEmbedFields, await read_json_body(call.request, self._limits))
        if not fields.input:
            return json_answer({"model": fields.model, "embeddings": []})
        asked = EmbeddingFields(
            model=own_name(self._core, fields.model),
            input=fields.input,
            dimensions=fields.dimensions or None,
            truncate_prompt_tokens=-1 if fields.truncate else None,
        )
        made = await self._embeddings.vectors(call, asked)
        return json_answer(
            {
                "model": fields.model,
                "embeddings": made.vectors.tolist(),
                "prompt_eval_count": made.num_tokens,
            }
        )

    async def embeddings(self, call: Call) -> web.StreamResponse:
        """The vector of one text."""
        fields = parse(OllamaEmbeddingsFields, await read_json_body(call.request, self._limits))
        if not fields.prompt:
            return json_answer({"embedding": []})
        name = own_name(self._core, fields.model)
        asked = EmbeddingFields(model=name, input=fields.prompt, truncate_prompt_tokens=-1)
        made = await self._embeddings.vectors(call, asked)
        return json_answer({"embedding": made.vectors[0].tolist()})

    def _generator(self, call: Call, fields: AskFields) -> Generator:
        return asked_generator(self._core, own_name(self._core, fields.model), call)

    async def _converse(
        self, call: Call, fields: AskFields, chat: OllamaChat, generator: Generator, form: Form
    ) -> web.StreamResponse:
        conversation = Conversation(chat, generator, _new_id())
        await conversation.start()
        parts = conversation.tools.choice()
        answer = Answer(fields.model, form, parts, len(conversation.prompt))
        return await self._answered(call, fields, conversation, answer)

    async def _answered(
        self, call: Call, fields: AskFields, asked: _Asked, answer: Answer
    ) -> web.StreamResponse:
        """An error before the first chunk has a status of its own; a later one is the last line."""
        if not fields.stream:
            return json_answer(answer.document(await asked.outputs.all()))
        lines = EventStream(call, _STREAM_HEADERS)
        keep_alive_s = self._limits.event_keep_alive_s
        try:
            await pump(lines, asked.outputs, answer.write, error_line, keep_alive_s, answer.idle())
            await lines.close()
        finally:
            asked.outputs.close()
        return lines.response


def _is_chat(fields: OllamaPromptFields, generator: Generator) -> bool:
    """Whether the prompt is a message. Raises InvalidRequest for what no plain prompt can have."""
    if generator.info.chat_template and not fields.raw:
        return True
    if fields.images or fields.system:
        name = "images" if fields.images else "system"
        why = "raw=true" if fields.raw else "a model without a chat template"
        raise InvalidRequest(f"{name}: {why} reads a plain prompt, which has none")
    return False


def _new_id() -> str:
    return f"ollama-{uuid.uuid4().hex}"

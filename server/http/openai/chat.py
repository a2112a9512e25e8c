"""POST /v1/chat/completions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from trivet.backends.api import Chunk, Generator
from trivet.server.core import Generators
from trivet.server.http.answers import json_answer
from trivet.server.http.beginnings import of_messages
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.chat_stream import ChatStream
from trivet.server.http.openai.chat_tools import whole_message
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.events import Merging, stream
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.prompts import named_generator
from trivet.server.http.routes import Call


class Chat:
    """The handler."""

    def __init__(self, core: Generators, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def complete(self, call: Call) -> web.StreamResponse:
        """One answer or a stream of events."""
        fields = parse(ChatFields, await read_json_body(call.request, self._limits))
        fields.check()
        call.user = fields.user or ""
        call.beginning = partial(of_messages, fields.messages)
        fields.model, generator = named_generator(self._core, fields.model, call)
        chat = ChatAnswer(fields, generator, call.told)
        await chat.conversation.start()
        outputs = chat.conversation.outputs
        if fields.stream:
            keep_alive_s = self._limits.event_keep_alive_s
            writer = Merging(chat.stream(), fields.stream_interval)
            return await stream(call, outputs, writer, keep_alive_s)
        return json_answer(chat.document(await outputs.all()))


class ChatAnswer:
    """One request's answer in the form of this API."""

    def __init__(self, fields: ChatFields, generator: Generator, told: Mapping[str, str]) -> None:
        """Raises Unsupported."""
        self._fields = fields
        self._head = docs.Head(
            docs.new_id("chatcmpl", fields.request_id), docs.now_s(), fields.model, told
        )
        self.conversation = Conversation(fields, generator, self._head.id)

    def stream(self) -> ChatStream:
        """Writes the answer as events."""
        conversation = self.conversation
        return ChatStream(self._fields, self._head, conversation.prompt, conversation.tools)

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole answer."""
        prompt = self.conversation.prompt
        outputs = docs.collect(chunks, self.conversation.num_choices)
        num_output = sum(len(output.token_ids) for output in outputs)
        scored = outputs[0].prompt_logprobs
        document = {
            **self._head.fields("chat.completion"),
            "service_tier": None,
            "choices": [self._choice(index, output) for index, output in enumerate(outputs)],
            "usage": docs.usage(len(prompt), num_output, outputs[0].num_cached),
            "prompt_logprobs": None if scored is None else docs.prompt_logprobs(scored),
        }
        if self._fields.return_token_ids:
            document["prompt_token_ids"] = prompt
        return document

    def _choice(self, index: int, output: docs.Output) -> dict[str, Any]:
        fields = self._fields
        message, finish = self._message(output)
        logprobs = None
        if fields.logprobs:
            as_ids = bool(fields.return_tokens_as_token_ids)
            logprobs = docs.chat_logprobs(output.logprobs, as_ids=as_ids)
        choice = {
            "index": index,
            "message": {"role": "assistant", "refusal": None, **message},
            "logprobs": logprobs,
            **finish,
        }
        if fields.return_token_ids:
            choice["token_ids"] = output.token_ids
        return choice

    def _message(self, output: docs.Output) -> tuple[dict[str, Any], dict[str, Any]]:
        """The message without its role, and why it ended."""
        calls = self.conversation.tools.choice()
        if calls is None:
            echoed = docs.echoed(self._fields.messages) if self._fields.echo else ""
            return {"content": echoed + output.text}, docs.finish_fields(output.finish)
        *others, last = output.texts
        deltas = [delta for text in others for delta in calls.deltas(text, is_last=False)]
        deltas += calls.deltas(last, is_last=True)
        return whole_message(deltas), calls.finish(output.finish)

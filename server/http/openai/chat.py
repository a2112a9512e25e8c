"""POST /v1/chat/completions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from trivet.backends.api import (
    ChatInput,
    Choices,
    Chunk,
    GenerateRequest,
    Generator,
    InvalidRequest,
)
from trivet.server.core import Generators
from trivet.server.http.answers import json_answer
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.chat_stream import ChatStream
from trivet.server.http.openai.chat_tools import ChatTools, whole_message
from trivet.server.http.openai.events import Merging, stream
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.messages import plain_messages
from trivet.server.http.openai.prompts import named_generator, seeded, truncated
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
        fields.model, generator = named_generator(self._core, fields.model, call.request_id)
        chat = Conversation(fields, generator)
        await chat.start()
        if fields.stream:
            keep_alive_s = self._limits.event_keep_alive_s
            writer = Merging(chat.stream(), fields.stream_interval)
            return await stream(call, chat.outputs, writer, keep_alive_s)
        return json_answer(chat.document(await chat.outputs.all()))


class Conversation:
    """One request on its way."""

    def __init__(self, fields: ChatFields, generator: Generator) -> None:
        """Raises Unsupported."""
        self._fields = fields
        self._generator = generator
        self._head = docs.Head(
            docs.new_id("chatcmpl", fields.request_id), docs.now_s(), fields.model
        )
        self._prompt: list[int] = []
        self._num_choices = fields.n or 1
        self._tools = ChatTools(fields, generator.info)
        self.outputs = Outputs()

    async def start(self) -> None:
        """Renders, tokenises and submits. Raises InvalidRequest."""
        fields = self._fields
        fields.check_logprobs(self._generator.info.max_logprobs)
        num_top = (fields.top_logprobs or 0) if fields.logprobs else None
        defaults = self._generator.info.sampling_defaults
        sampling = fields.sampling(fields.token_limit, num_top, defaults)
        if self._tools.is_free:
            # The marks of calls are special tokens of some models.
            sampling = replace(sampling, skip_special_tokens=False)
        given = ChatInput(
            plain_messages(fields.messages),
            tools=fields.shown_tools(),
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
            arguments=fields.template_arguments(),
        )
        images = given.images
        if images and fields.truncate_prompt_tokens is not None:
            raise InvalidRequest("truncate_prompt_tokens: it is not offered with images")
        text = await self._generator.render(given)
        self._tools.note_prompt(text)
        ids = await self._generator.encode(text, add_special_tokens=fields.add_special_tokens)
        self._prompt = truncated(
            ids, fields.truncate_prompt_tokens, self._generator, fields.truncation_side
        )
        recommended = defaults.get("max_tokens")
        if fields.token_limit is None and recommended is not None:
            room = self._generator.info.max_model_len - len(self._prompt)
            sampling = replace(sampling, max_tokens=max(min(int(recommended), room), 1))
        choices = Choices(self._num_choices)
        for index in range(self._num_choices):
            request = GenerateRequest(
                self._head.id,
                self._prompt,
                seeded(sampling, index),
                priority=fields.priority,
                cache_salt=fields.cache_salt or "",
                choices=choices,
                images=images,
            )
            self.outputs.start(self._generator, request)

    def stream(self) -> ChatStream:
        """Writes the answer as events."""
        return ChatStream(self._fields, self._head, self._prompt, self._tools)

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole answer."""
        outputs = docs.collect(chunks, self._num_choices)
        num_output = sum(len(output.token_ids) for output in outputs)
        scored = outputs[0].prompt_logprobs
        document = {
            **self._head.fields("chat.completion"),
            "service_tier": None,
            "choices": [self._choice(index, output) for index, output in enumerate(outputs)],
            "usage": docs.usage(len(self._prompt), num_output, outputs[0].num_cached),
            "prompt_logprobs": None if scored is None else docs.prompt_logprobs(scored),
        }
        if self._fields.return_token_ids:
            document["prompt_token_ids"] = self._prompt
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
        calls = self._tools.choice()
        if calls is None:
            echoed = docs.echoed(self._fields.messages) if self._fields.echo else ""
            return {"content": echoed + output.text}, docs.finish_fields(output.finish)
        *others, last = output.texts
        deltas = [delta for text in others for delta in calls.deltas(text, is_last=False)]
        deltas += calls.deltas(last, is_last=True)
        return whole_message(deltas), calls.finish(output.finish)

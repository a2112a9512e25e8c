"""POST /v1/chat/completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from trivet.backends.api import Chunk, GenerateRequest, Generator, Unsupported
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.body import read_body
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.errors import answers_errors
from trivet.server.http.openai.events import event, stream
from trivet.server.http.openai.fields import ChatFields, parse
from trivet.server.http.openai.prompts import seeded, truncated
from trivet.server.http.routes import Call, Route


class Chat:
    """The handler."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/chat/completions", answers_errors(self.complete))]

    async def complete(self, call: Call) -> web.StreamResponse:
        """One answer or a stream of events."""
        fields = parse(ChatFields, await read_body(call.request, self._limits))
        fields.check()
        chat = Conversation(fields, self._core.generator(fields.model))
        await chat.start()
        if fields.stream:
            return await stream(call, chat.outputs, chat.write, chat.end)
        return json_answer(chat.document(await chat.outputs.all()))


class Conversation:
    """One request on its way."""

    def __init__(self, fields: ChatFields, generator: Generator) -> None:
        self._fields = fields
        self._generator = generator
        self._id = docs.new_id("chatcmpl")
        self._created_s = docs.now_s()
        self._prompt: list[int] = []
        self._started: set[int] = set()
        self._num_output = 0
        self._num_cached = 0
        self._num_choices = fields.n or 1
        self.outputs = Outputs()

    async def start(self) -> None:
        """Renders, tokenises and submits. Raises InvalidRequest."""
        fields = self._fields
        if fields.tools and fields.tool_choice not in (None, "none", "auto"):
            raise Unsupported("tool_choice: only none and auto are offered")
        num_top = (fields.top_logprobs or 0) if fields.logprobs else None
        sampling = fields.sampling(fields.token_limit, num_top)
        text = await self._generator.render(
            [plain_message(message) for message in fields.messages],
            tools=fields.tools if fields.tool_choice != "none" else None,
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
            arguments=fields.chat_template_kwargs,
        )
        ids = await self._generator.encode(text, add_special_tokens=fields.add_special_tokens)
        self._prompt = truncated(ids, fields.truncate_prompt_tokens, self._generator)
        for index in range(self._num_choices):
            request = GenerateRequest(
                self._id,
                self._prompt,
                seeded(sampling, index),
                priority=fields.priority,
                cache_salt=fields.cache_salt or "",
            )
            self.outputs.start(self._generator, request)

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole answer."""
        outputs = docs.collect(chunks, self._num_choices)
        num_output = sum(len(output.token_ids) for output in outputs)
        document = {
            **self._head("chat.completion"),
            "choices": [self._choice(index, output) for index, output in enumerate(outputs)],
            "usage": docs.usage(len(self._prompt), num_output, outputs[0].num_cached),
        }
        if outputs[0].prompt_logprobs is not None:
            document["prompt_logprobs"] = docs.prompt_logprobs(outputs[0].prompt_logprobs)
        if self._fields.return_token_ids:
            document["prompt_token_ids"] = self._prompt
        return document

    def _choice(self, index: int, output: docs.Output) -> dict[str, Any]:
        fields = self._fields
        content = output.text
        if fields.echo:
            content = str(plain_message(fields.messages[-1]).get("content") or "") + content
        choice = {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": docs.chat_logprobs(output.logprobs) if fields.logprobs else None,
            **docs.finish_fields(output.finish),
        }
        if fields.return_token_ids:
            choice["token_ids"] = output.token_ids
        return choice

    # -- streams -------------------------------------------------------------------------------

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks."""
        events = []
        for index, chunk in chunks:
            if index not in self._started:
                self._started.add(index)
                delta = {"role": "assistant", "content": ""}
                events.append(event(self._delta(index, delta, None)))
            events.append(event(self._delta(index, {"content": chunk.text}, chunk)))
        return b"".join(events)

    def _delta(self, index: int, delta: dict[str, str], chunk: Chunk | None) -> dict[str, Any]:
        finish = None if chunk is None else chunk.finish
        choice = {"index": index, "delta": delta, "logprobs": None, **docs.finish_fields(finish)}
        if chunk is not None:
            if self._fields.logprobs:
                choice["logprobs"] = docs.chat_logprobs(chunk.logprobs)
            if self._fields.return_token_ids:
                choice["token_ids"] = chunk.token_ids
            self._num_output += len(chunk.token_ids)
            self._num_cached += chunk.num_cached if index == 0 else 0
        document = {**self._head("chat.completion.chunk"), "choices": [choice]}
        options = self._fields.stream_options
        if options is not None and options.continuous_usage_stats:
            document["usage"] = self._usage()
        return document

    def end(self) -> bytes:
        """What follows the last chunk."""
        options = self._fields.stream_options
        if options is None or not options.include_usage:
            return b""
        head = self._head("chat.completion.chunk")
        return event({**head, "choices": [], "usage": self._usage()})

    def _usage(self) -> dict[str, Any]:
        return docs.usage(len(self._prompt), self._num_output, self._num_cached)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created_s,
            "model": self._fields.model,
            "system_fingerprint": None,
        }


def plain_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its text parts joined: templates of text models expect a text."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": "\n".join(part["text"] for part in content)}

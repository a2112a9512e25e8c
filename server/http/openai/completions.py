"""POST /v1/completions: prompts, not conversations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from trivet.backends.api import (
    Choices,
    Chunk,
    GenerateRequest,
    Generator,
    InvalidRequest,
    Sampling,
    TokenLogprob,
)
from trivet.server.core import Generators
from trivet.server.http.answers import json_answer
from trivet.server.http.beginnings import of_prompt
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.events import EventWriter, Merging, stream
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.prompts import named_generator, seeded, truncated
from trivet.server.http.openai.sampling_fields import CompletionFields
from trivet.server.http.routes import Call

DEFAULT_MAX_TOKENS = 16


class Completions:
    """The handler."""

    def __init__(self, core: Generators, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def complete(self, call: Call) -> web.StreamResponse:
        """One answer or a stream of events."""
        fields = parse(CompletionFields, await read_json_body(call.request, self._limits))
        fields.check()
        call.user = fields.user or ""
        call.beginning = partial(of_prompt, fields.prompt)
        fields.model, generator = named_generator(self._core, fields.model, call)
        completion = Completion(fields, generator, call.told)
        await completion.start()
        if fields.stream:
            keep_alive_s = self._limits.event_keep_alive_s
            writer = Merging(completion, fields.stream_interval)
            return await stream(call, completion.outputs, writer, keep_alive_s)
        return json_answer(completion.document(await completion.outputs.all()))


class Completion:
    """One request on its way."""

    def __init__(
        self, fields: CompletionFields, generator: Generator, told: Mapping[str, str]
    ) -> None:
        self._fields = fields
        self._generator = generator
        self._head = docs.Head(
            docs.new_id("cmpl", fields.request_id), docs.now_s(), fields.model, told
        )
        self._events = EventWriter(self._head.fields(_KIND))
        self._prompts: list[list[int]] = []
        self._texts: list[str] = []
        self._num_choices = fields.n or 1
        self._num_output = 0
        self._num_cached = 0
        self._sizes: dict[int, int] = {}
        """Characters of each choice that have gone out."""
        options = fields.stream_options
        self._counts_each = options is not None and options.continuous_usage_stats
        self._is_plain = (
            fields.logprobs is None and not fields.return_token_ids and not self._counts_each
        )
        """Whether a chunk's event holds its text and nothing else that changes."""
        self.outputs = Outputs()

    async def start(self) -> None:
        """Tokenises the prompts and submits each as often as asked. Raises InvalidRequest."""
        fields = self._fields
        max_tokens = DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens
        if max_tokens == 0 and not fields.echo:
            raise InvalidRequest("max_tokens: it is 0; at least 1 is needed unless echo is true")
        sampling = fields.sampling(
            max_tokens, fields.logprobs, self._generator.info.sampling_defaults
        )
        for prompt in fields.prompts():
            ids, text = await self._read(prompt)
            limit, side = fields.truncate_prompt_tokens, fields.truncation_side
            self._prompts.append(truncated(ids, limit, self._generator, side))
            self._texts.append(text)
        for ids in self._prompts:
            choices = Choices(self._num_choices)
            for index in range(self._num_choices):
                request = GenerateRequest(
                    self._head.id,
                    ids,
                    seeded(self._scored(sampling), index),
                    priority=fields.priority,
                    cache_salt=fields.cache_salt or "",
                    choices=choices,
                )
                self.outputs.start(self._generator, request)

    async def _read(self, prompt: str | list[int]) -> tuple[list[int], str]:
        if isinstance(prompt, str):
            ids = await self._generator.encode(
                await self._generator.compose(prompt),
                add_special_tokens=self._fields.add_special_tokens,
            )
            return ids, prompt
        if not self._fields.echo:
            return prompt, ""
        return prompt, await self._generator.decode(prompt, skip_special_tokens=True)

    def _scored(self, sampling: Sampling) -> Sampling:
        if self._fields.echo and self._fields.logprobs is not None:
            return replace(sampling, prompt_logprobs=self._fields.logprobs)
        return sampling

    # -- answers -------------------------------------------------------------------------------

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole answer."""
        outputs = docs.collect(chunks, len(self._prompts) * self._num_choices)
        choices = [self._choice(index, output) for index, output in enumerate(outputs)]
        num_output = sum(len(output.token_ids) for output in outputs)
        num_cached = sum(output.num_cached for output in outputs[:: self._num_choices])
        usage = docs.usage(sum(map(len, self._prompts)), num_output, num_cached)
        return {
            **self._head.fields(_KIND),
            "service_tier": None,
            "choices": choices,
            "usage": usage,
        }

    def _choice(self, index: int, output: docs.Output) -> dict[str, Any]:
        fields = self._fields
        number = index // self._num_choices
        text = (self._texts[number] if fields.echo else "") + output.text
        choice: dict[str, Any] = {
            "index": index,
            "text": text,
            **_OPTIONAL,
            **docs.finish_fields(output.finish),
            "prompt_logprobs": None,
        }
        scored = list(output.prompt_logprobs or ()) if fields.echo else []
        if fields.logprobs is not None:
            choice["logprobs"] = self._logprobs([*scored, *output.logprobs], 0)
        if fields.prompt_logprobs is not None and output.prompt_logprobs is not None:
            choice["prompt_logprobs"] = docs.prompt_logprobs(output.prompt_logprobs)
        if fields.return_token_ids:
            choice["token_ids"] = output.token_ids
            choice["prompt_token_ids"] = self._prompts[number]
        return choice

    # -- streams -------------------------------------------------------------------------------

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks."""
        return b"".join([self._event(index, chunk) for index, chunk in chunks])

    def _event(self, index: int, chunk: Chunk) -> bytes:
        fields = self._fields
        is_first = index not in self._sizes
        offset = self._sizes.setdefault(index, 0)
        text = chunk.text
        if fields.echo and is_first:
            text = self._texts[index // self._num_choices] + text
        self._sizes[index] = offset + len(text)
        self._num_output += len(chunk.token_ids)
        self._num_cached += chunk.num_cached if index % self._num_choices == 0 else 0
        if self._is_plain and chunk.finish is None:
            return self._events.text(index, _BEFORE, text, _AFTER)
        choice = self._streamed(index, text, offset, chunk)
        if fields.return_token_ids and is_first:
            choice["prompt_token_ids"] = self._prompts[index // self._num_choices]
        return self._events.choice(choice, self._usage() if self._counts_each else None)

    def _streamed(self, index: int, text: str, offset: int, chunk: Chunk) -> dict[str, Any]:
        fields = self._fields
        choice: dict[str, Any] = {
            "index": index,
            "text": text,
            **_OPTIONAL,
            **docs.finish_fields(chunk.finish),
        }
        if fields.logprobs is not None:
            scored = [*(chunk.prompt_logprobs or ()), *chunk.logprobs]
            choice["logprobs"] = self._logprobs(scored, offset)
        if fields.return_token_ids:
            choice["token_ids"] = chunk.token_ids
        return choice

    def end(self) -> bytes:
        """What follows the last chunk."""
        options = self._fields.stream_options
        if options is None or not options.include_usage:
            return b""
        return self._events.last({**self._usage(), **docs.cost_in(self._head.told)})

    def _usage(self) -> dict[str, Any]:
        return docs.usage(sum(map(len, self._prompts)), self._num_output, self._num_cached)

    def _logprobs(self, scored: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        as_ids = bool(self._fields.return_tokens_as_token_ids)
        num_top = max(self._fields.logprobs or 0, len(self._fields.logprob_token_ids or ()))
        return docs.completion_logprobs(scored, offset, num_top, as_ids=as_ids)


_KIND = "text_completion"
_BEFORE = b'"text":'
_OPTIONAL: dict[str, Any] = {
    "logprobs": None, "finish_reason": None, "stop_reason": None, "token_ids": None,
    "prompt_token_ids": None,
}  # fmt: skip
"""Keys that vLLM's choices always have, here in the order of `_AFTER`."""
_AFTER = (
    b',"logprobs":null,"finish_reason":null,"stop_reason":null,"token_ids":null,'
    b'"prompt_token_ids":null}'
)

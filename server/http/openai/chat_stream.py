"""A chat's answer as events."""

from collections.abc import Sequence
from typing import Any

from trivet.backends.api import Chunk
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.chat_tools import ChatTools
from trivet.server.http.openai.events import EventWriter
from trivet.server.http.openai.reasoning import ChoiceParts

_KIND = "chat.completion.chunk"


class ChatStream:
    """Writes the chunks of all choices, in the order in which they come."""

    def __init__(
        self, fields: ChatFields, head: docs.Head, prompt: Sequence[int], tools: ChatTools
    ) -> None:
        self._fields = fields
        self._told = head.told
        self._prompt = prompt
        self._num_output = 0
        self._num_cached = 0
        self._tools = tools
        self._calls: dict[int, ChoiceParts | None] = {}
        """Of the choices that have begun."""
        self._events = EventWriter(head.fields(_KIND))
        options = fields.stream_options
        self._counts_each = options is not None and options.continuous_usage_stats
        self._is_plain = not (
            fields.logprobs or fields.return_token_ids or tools.takes_apart or self._counts_each
        )
        """Whether a chunk's event holds its text and nothing else that changes."""

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks."""
        parts: list[bytes] = []
        for index, chunk in chunks:
            if index not in self._calls:
                parts += self._begin(index)
            self._num_output += len(chunk.token_ids)
            self._num_cached += chunk.num_cached if index == 0 else 0
            if self._is_plain and chunk.finish is None:
                parts.append(self._events.text(index, _BEFORE, chunk.text, _AFTER))
            else:
                parts += self._full(index, chunk)
        return b"".join(parts)

    def end(self) -> bytes:
        """What follows the last chunk."""
        options = self._fields.stream_options
        if options is None or not options.include_usage:
            return b""
        return self._events.last({**self._usage(), **docs.cost_in(self._told)})

    def _begin(self, index: int) -> list[bytes]:
        self._calls[index] = self._tools.choice()
        is_first = len(self._calls) == 1
        begun = [self._first(index, tells_prompt=is_first and bool(self._fields.return_token_ids))]
        if self._fields.echo:
            delta = {"content": docs.echoed(self._fields.messages)}
            begun.append(self._event(index, delta, None))
        return begun

    def _first(self, index: int, *, tells_prompt: bool) -> bytes:
        delta = {"role": "assistant", "content": ""}
        if not tells_prompt:
            return self._event(index, delta, None)
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._events.prompt(choice, self._prompt)

    def _full(self, index: int, chunk: Chunk) -> list[bytes]:
        calls = self._calls[index]
        if calls is None:
            return [self._event(index, {"content": chunk.text}, chunk)]
        deltas = calls.deltas(chunk.text, is_last=chunk.finish is not None)
        tells = chunk.finish is not None or chunk.logprobs or self._fields.return_token_ids
        if not deltas and not tells:
            return []
        # What belongs to the chunk as a whole goes with its last delta.
        *others, last = deltas or [{}]
        events = [self._event(index, delta, None) for delta in others]
        return [*events, self._event(index, last, chunk)]

    def _event(self, index: int, delta: dict[str, Any], chunk: Chunk | None) -> bytes:
        calls = self._calls[index]
        finish = None if chunk is None else chunk.finish
        ends = docs.finish_fields(finish) if calls is None else calls.finish(finish)
        choice = {"index": index, "delta": delta, "logprobs": None, **ends}
        if chunk is not None and self._fields.logprobs:
            as_ids = bool(self._fields.return_tokens_as_token_ids)
            choice["logprobs"] = docs.chat_logprobs(chunk.logprobs, as_ids=as_ids)
        if chunk is not None and self._fields.return_token_ids:
            choice["token_ids"] = chunk.token_ids
        return self._events.choice(choice, self._usage() if self._counts_each else None)

    def _usage(self) -> dict[str, Any]:
        return docs.usage(len(self._prompt), self._num_output, self._num_cached)


_BEFORE = b'"delta":{"content":'
_AFTER = b'},"logprobs":null,"finish_reason":null}'

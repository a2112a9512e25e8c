"""A model's output as one message, whole or by events."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import Chunk, Finish
from trivet.server.http.anthropic.blocks import Blocks, Event, whole_content
from trivet.server.http.anthropic.fields import MessagesFields
from trivet.server.http.openai.conversation import Conversation
from trivet.server.http.openai.documents import cost_in
from trivet.server.http.openai.events import named_event


class MessageAnswer:
    """Of one request. Its conversation has started."""

    def __init__(
        self,
        fields: MessagesFields,
        conversation: Conversation,
        message_id: str,
        told: Mapping[str, str],
    ) -> None:
        """`told`: of the version that computes it; see Admitted."""
        self._fields = fields
        self._id = message_id
        self._told = told
        self._num_prompt = len(conversation.prompt)
        self._num_cached = 0
        self._num_output = 0
        self._finish: Finish | None = None
        self._has_begun = False
        thinking = fields.thinking
        self._blocks = Blocks(
            conversation.tools.choice(),
            eager=_eager_tools(fields),
            tells_thoughts=thinking is None or thinking.display != "omitted",
        )

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole message."""
        events = [event for _, chunk in chunks for event in self._events(chunk)]
        return {**self._message(), **self._stop(), "content": whole_content(events)}

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks."""
        events: list[Event] = []
        for _, chunk in chunks:
            told = self._events(chunk)
            if not self._has_begun:
                self._has_begun = True
                # What was cached is known with the first chunk.
                usage = {**self._usage(), "output_tokens": 0}
                message = {**self._message(), **_NO_STOP, "usage": usage}
                events.append({"type": "message_start", "message": message})
            events += told
        return b"".join([named_event(event["type"], event) for event in events])

    def end(self) -> bytes:
        """What follows the last chunk."""
        usage = {**self._usage(), **cost_in(self._told)}
        delta = {"type": "message_delta", "delta": self._stop(), "usage": usage}
        stopped = named_event("message_stop", {"type": "message_stop"})
        return named_event("message_delta", delta) + stopped

    def _events(self, chunk: Chunk) -> list[Event]:
        self._num_cached += chunk.num_cached
        self._num_output += len(chunk.token_ids)
        self._finish = chunk.finish
        return self._blocks.events(chunk.text, is_last=chunk.finish is not None)

    def _message(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._fields.model,
            "content": [],
            "usage": self._usage(),
        }

    def _usage(self) -> dict[str, Any]:
        """What was cached is not counted among the others here, unlike in OpenAI's API."""
        return {
            "input_tokens": self._num_prompt - self._num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._num_cached,
            "output_tokens": self._num_output,
        }

    def _stop(self) -> dict[str, Any]:
        finish = self._finish
        if finish is None:
            return _NO_STOP
        if finish.reason == "length":
            is_at_limit = self._num_output >= self._fields.max_tokens
            reason = "max_tokens" if is_at_limit else "model_context_window_exceeded"
            return {"stop_reason": reason, "stop_sequence": None}
        if isinstance(finish.stop, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
        reason = "tool_use" if self._blocks.has_called else "end_turn"
        return {"stop_reason": reason, "stop_sequence": None}


def _eager_tools(fields: MessagesFields) -> frozenset[str]:
    """Of a stream: a whole answer has only calls that are whole."""
    if not fields.stream:
        return frozenset()
    return frozenset(tool.name for tool in fields.tools or () if tool.eager_input_streaming)


_NO_STOP: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}

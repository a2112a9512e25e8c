"""Traces of what language models generate: a span for each output, with the gen_ai attributes of
OpenTelemetry's conventions and, beside them, the older names that vLLM has."""

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    Chunk,
    GenerateRequest,
    GenerateSink,
    Generator,
    ServingError,
)
from trivet.backends.api.delegating import DelegatingGenerator
from trivet.server.tracing.arrival import current_arrival
from trivet.server.tracing.context import new_span_id
from trivet.server.tracing.live import BACKEND_OUTPUT, QUEUE_INPUT, LiveTrace, Part
from trivet.server.tracing.record import AttributeValue, SeenTensor, Span, Stamp
from trivet.server.tracing.tracer import Tracer

MESSAGES, PROMPT, TEXT_OUTPUT = "messages", "prompt", "text_output"
"""What traced texts are called, which are tensors of one element: the first is JSON."""
SPAN = "llm_request"
NOTHING: Mapping[str, AttributeValue] = MappingProxyType({})
PROVIDER = "trivet"
CHAT, TEXT = "chat", "text_completion"
"""What was asked for, in the conventions' words."""


class Named(Protocol):
    """A model, as far as traces tell of it."""

    @property
    def name(self) -> str:
        """Without the version."""

    @property
    def version(self) -> int:
        """The one that was chosen for the request."""


class TracedGenerator(DelegatingGenerator):
    """A Generator, asked on behalf of one client's request: its outputs share a trace."""

    def __init__(
        self,
        inner: Generator,
        tracer: Tracer,
        model: "Named",
        about: Mapping[str, AttributeValue] = NOTHING,
    ) -> None:
        """`about`: what each of its spans says of the choice of the version."""
        super().__init__(inner)
        self._about = about
        self._tracer = tracer
        self._model = model
        self._live: LiveTrace | None = None
        self._is_decided = False
        self._operation = TEXT
        self._said: tuple[str, object] | None = None
        """What the client says: `messages` or `prompt`, and these."""

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """What follows answers a conversation."""
        self._operation = CHAT
        self._said = (MESSAGES, chat.messages)
        return await super().render(chat, account)

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """What follows goes on with a text."""
        self._said = (PROMPT, prompt)
        return await super().compose(prompt, account)

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises."""
        if not self._is_decided:
            self._is_decided = True
            self._live = self._tracer.start(self._model.name, current_arrival.get())
        if self._live is not None:
            sink = _begin(self._live, self._model, self._operation, request, sink)
            sink.part.span.attributes.update(self._about)
            if self._live.setting.has_tensors and self._said is not None:
                sink.keep(*self._said)
        self._inner.generate(request, sink)


def _begin(
    live: LiveTrace,
    model: "Named",
    operation: str,
    request: GenerateRequest,
    sink: GenerateSink,
) -> "GenerationSink":
    now_ns = time.monotonic_ns()
    # Those after the first may come when the first has ended: a trace of the same id takes them.
    current = LiveTrace(live.context, live.setting, live.deliver, [])
    about = (model.name, model.version, request.id)
    span = Span(SPAN, new_span_id(), live.context.span_id, now_ns, 0, *about)
    span.stamps.append(Stamp("REQUEST_START", now_ns))
    span.is_whole = True
    span.attributes["gen_ai.operation.name"] = operation
    span.attributes.update(_asked(model.name, request))
    return GenerationSink(Part(current, span), request, sink)


def _asked(model: str, request: GenerateRequest) -> dict[str, AttributeValue]:
    sampling = request.sampling
    asked: dict[str, AttributeValue] = {
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.id": request.id,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.n": 1,
        "gen_ai.usage.input_tokens": len(request.prompt_ids),
        "gen_ai.usage.prompt_tokens": len(request.prompt_ids),
    }
    if sampling.max_tokens is not None:
        asked["gen_ai.request.max_tokens"] = sampling.max_tokens
    return asked


class GenerationSink:
    """Counts one output's tokens and times on their way."""

    __slots__ = ("_first_ns", "_num_tokens", "_queue_s", "_request", "_sink", "_texts", "part")

    def __init__(self, part: Part, request: GenerateRequest, sink: GenerateSink) -> None:
        self.part = part
        self._request = request
        self._sink = sink
        self._num_tokens = 0
        self._first_ns = 0
        self._queue_s = 0.0
        self._texts: list[str] | None = None
        """Where texts are traced."""

    def keep(self, name: str, said: object) -> None:
        """Texts are traced, too: what was said, and from now on what is answered."""
        text = said if isinstance(said, str) else json.dumps(said, default=str)
        self.part.span.tensors.append(_seen(QUEUE_INPUT, name, text))
        self._texts = []

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        self._num_tokens += len(chunk.token_ids)
        if self._texts is not None:
            self._texts.append(chunk.text)
        if not self._first_ns:
            self._first_ns = time.monotonic_ns()
            self._queue_s = chunk.queue_s
        if chunk.finish is not None:
            reason, attributes = chunk.finish.reason, self.part.span.attributes
            attributes["gen_ai.response.finish_reasons"] = (reason,)
            attributes["gen_ai.response.finish_reason"] = reason
            self._end()
        self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._end(error.message)
        self._sink.fail(error)

    def _end(self, error: str = "") -> None:
        part, now_ns = self.part, time.monotonic_ns()
        if part.span.ended_ns:
            return
        attributes = part.span.attributes
        attributes["gen_ai.usage.output_tokens"] = self._num_tokens
        attributes["gen_ai.usage.completion_tokens"] = self._num_tokens
        attributes["gen_ai.latency.e2e"] = (now_ns - part.span.started_ns) / 1e9
        if self._first_ns:
            first_s = (self._first_ns - part.span.started_ns) / 1e9
            decode_s = (now_ns - self._first_ns) / 1e9
            attributes["gen_ai.latency.time_in_queue"] = self._queue_s
            attributes["gen_ai.latency.time_to_first_token"] = first_s
            attributes["gen_ai.latency.time_in_model_prefill"] = max(first_s - self._queue_s, 0.0)
            attributes["gen_ai.latency.time_in_model_decode"] = decode_s
        if self._texts is not None:
            part.span.tensors.append(_seen(BACKEND_OUTPUT, TEXT_OUTPUT, "".join(self._texts)))
        part.span.stamps.append(Stamp("REQUEST_END", now_ns))
        part.end(error)


def _seen(activity: str, name: str, text: str) -> SeenTensor:
    return SeenTensor(activity, name, "BYTES", np.array([text.encode()], dtype=np.object_))

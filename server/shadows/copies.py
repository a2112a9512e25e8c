"""What a shadow is asked: the same as the version that has answered, and what that answered."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from trivet.backends.api import (
    AsksAnother,
    BackendFailed,
    Cancelled,
    CancelToken,
    ChatInput,
    Choices,
    Chunk,
    GenerateRequest,
    Generator,
    InferRequest,
    InferResponse,
    RequestContext,
    ServingError,
    Sink,
    Tensor,
)
from trivet.server.models.check import submit
from trivet.server.models.model import Model

log = logging.getLogger(__name__)
PROMPT, TEXT_OUTPUT = "prompt", "text_output"
"""What texts are called where differences are told, as if they were tensors."""


class Copy(Protocol):
    """A request and what it was answered with."""

    @property
    def request_id(self) -> str:
        """The client's."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """What was asked."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What was answered."""

    def ask(self, shadow: Model, token: CancelToken, sink: Sink) -> None:
        """Asks a shadow; exactly one end goes to the sink. Never raises."""


@dataclass(frozen=True, slots=True)
class TensorCopy:
    """Of an infer request."""

    request: InferRequest
    outputs: Sequence[Tensor]

    @property
    def request_id(self) -> str:
        """See Copy."""
        return self.request.id

    @property
    def inputs(self) -> Sequence[Tensor]:
        """See Copy."""
        return list(self.request.inputs.values())

    def ask(self, shadow: Model, token: CancelToken, sink: Sink) -> None:
        """See Copy."""
        request = self.request
        asked = InferRequest(
            shadow.name,
            shadow.version,
            request.id,
            request.inputs,
            request.output_names,
            request.parameters,
        )
        submit(shadow, asked, RequestContext(token, None, ()), sink)


@dataclass(frozen=True, slots=True)
class Said:
    """What a client said to a model that generates text, before it was tokens."""

    what: ChatInput | str
    adds_special_tokens: bool


class TextCopy:
    """Of one output of a model that generates text. The shadow writes and tokenises the prompt
    itself: its template and vocabulary may be others."""

    __slots__ = ("_request", "_said", "_task", "outputs")

    def __init__(self, request: GenerateRequest, said: Said | None, text: str) -> None:
        """`said`: None where the client gave tokens."""
        self._request = request
        self._said = said
        self.outputs: Sequence[Tensor] = [_text(TEXT_OUTPUT, text)]
        self._task: asyncio.Task[None] | None = None

    @property
    def request_id(self) -> str:
        """See Copy."""
        return self._request.id

    @property
    def inputs(self) -> Sequence[Tensor]:
        """See Copy."""
        said = self._said
        if said is None:
            return [_text(PROMPT, str(list(self._request.prompt_ids)))]
        told = said.what if isinstance(said.what, str) else str(list(said.what.messages))
        return [_text(PROMPT, told)]

    def ask(self, shadow: Model, token: CancelToken, sink: Sink) -> None:
        """See Copy."""
        self._task = asyncio.ensure_future(self._ask(shadow, token, sink))
        self._task.add_done_callback(lambda task: _end_anyway(task, sink))

    async def _ask(self, shadow: Model, token: CancelToken, sink: Sink) -> None:
        try:
            generator = _generator(shadow)
            request = replace(
                self._request,
                prompt_ids=await self._read(generator),
                priority=_LAST,
                cancel=token,
                choices=Choices(1),
                on_tokens=None,
                deadline=None,
            )
        except ServingError as error:
            sink.fail(error)
            return
        generator.generate(request, _TextSink(shadow, request.id, sink))

    async def _read(self, generator: Generator) -> Sequence[int]:
        said = self._said
        if said is None:
            return self._request.prompt_ids
        make = generator.compose if isinstance(said.what, str) else generator.render
        text = await make(said.what)  # type: ignore[arg-type]  # each gets what it takes
        return await generator.encode(text, add_special_tokens=said.adds_special_tokens)


def _end_anyway(task: "asyncio.Task[None]", sink: Sink) -> None:
    """Whatever a shadow's template raises, its place is free again."""
    if task.cancelled():
        sink.fail(Cancelled("the shadow is not asked any more"))
    elif (error := task.exception()) is not None:
        log.error("a shadow could not be asked", exc_info=error)
        sink.fail(BackendFailed(f"the shadow could not be asked: {error!r}"))


_LAST = 1_000_000
"""The priority of what a shadow is asked: where it serves clients, too, they come first."""


def _generator(shadow: Model) -> Generator:
    executor = shadow.executor
    if isinstance(executor, AsksAnother):
        return executor.for_one_request()
    if not isinstance(executor, Generator):
        raise ServingError("the shadow does not generate text")
    return executor


def _text(name: str, text: str) -> Tensor:
    return Tensor.of(name, np.array([text.encode("utf-8", "replace")], np.object_))


class _TextSink:
    """Puts a text together."""

    __slots__ = ("_parts", "_request_id", "_shadow", "_sink")

    def __init__(self, shadow: Model, request_id: str, sink: Sink) -> None:
        self._shadow = shadow
        self._request_id = request_id
        self._sink = sink
        self._parts: list[str] = []

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        self._parts.append(chunk.text)
        if chunk.finish is not None:
            outputs = [_text(TEXT_OUTPUT, "".join(self._parts))]
            shadow = self._shadow
            response = InferResponse(shadow.name, shadow.version, self._request_id, outputs)
            self._sink.send(response, final=True)

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._sink.fail(error)


def copied(request: InferRequest, answer: Sequence[Tensor]) -> TensorCopy:
    """On memory of its own: that of a request or an answer may be another's soon."""
    inputs: Mapping[str, Tensor] = {
        name: on_own_memory(tensor) for name, tensor in request.inputs.items()
    }
    own = InferRequest(
        request.model_name, None, request.id, dict(inputs), request.output_names, request.parameters
    )
    return TensorCopy(own, [on_own_memory(tensor) for tensor in answer])


def on_own_memory(tensor: Tensor) -> Tensor:
    """A copy of a tensor."""
    return Tensor.from_raw(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.raw()))

"""Carries what models ask from their threads to the event loop."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import TypeVar

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    CheckedRequest,
    DeadlineExceeded,
    InferRequest,
    InferResponse,
    ModelServer,
    RequestContext,
    ServingError,
    Sink,
)
from trivet.backends.api.model_server import when_all_cancelled

_Answer = TypeVar("_Answer")


class LoopAsker:
    """The `Asker` over a server. Made on the event loop; sinks are called there."""

    owns_process = False

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()

    def infer(
        self,
        request: InferRequest,
        context: RequestContext,
        parents: Sequence[CheckedRequest],
        sink: Sink,
    ) -> None:
        """See Asker."""
        tokens = [parent.cancel for parent in parents]
        self._loop.call_soon_threadsafe(self._infer, request, context, tokens, sink)

    def _infer(
        self,
        request: InferRequest,
        context: RequestContext,
        parents: list[CancelToken],
        sink: Sink,
    ) -> None:
        bounded = _Bounded(request.model_name, context, sink)
        bounded.start(parents)
        if not bounded.is_over:
            self._server.infer(request, context, bounded)

    def cancel(self, context: RequestContext) -> None:
        """See Asker."""
        self._loop.call_soon_threadsafe(context.cancel.cancel)

    def give_room(self, context: RequestContext, num_responses: int) -> None:
        """See Asker."""
        if context.window is not None:
            self._loop.call_soon_threadsafe(context.window.give, num_responses)

    def is_ready(self, name: str, version: int | None) -> "Future[bool]":
        """See Asker."""
        return self._run(self._is_ready(name, version))

    def load(self, name: str, config_json: str | None) -> "Future[None]":
        """See Asker."""
        return self._run(self._server.load(name, config_json))

    def unload(self, name: str, *, unload_dependents: bool) -> "Future[None]":
        """See Asker."""
        return self._run(self._server.unload(name, unload_dependents=unload_dependents))

    async def _is_ready(self, name: str, version: int | None) -> bool:
        return self._server.is_ready(name, version)

    def _run(self, coroutine: Coroutine[object, object, _Answer]) -> "Future[_Answer]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


class _Bounded:
    """A sink in front of another: the end comes at the latest with the deadline, or when those on
    whose behalf is asked are gone. A cancellation by who asks is a wish, which the model is told:
    it may still end as it likes, and who asks goes on listening."""

    __slots__ = ("_cancel", "_deadline", "_model_name", "_sink", "_timer", "_window")

    def __init__(self, model_name: str, context: RequestContext, sink: Sink) -> None:
        self._cancel, self._deadline = context.cancel, context.deadline
        self._model_name, self._window = model_name, context.window
        self._sink: Sink | None = sink
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        return self._sink is None

    def start(self, parents: Sequence[CancelToken]) -> None:
        if self._cancel.cancelled:
            self._on_abandoned()
            return
        self._cancel.on_cancel(self._on_cancel)
        when_all_cancelled(parents, self._on_abandoned)
        if self._deadline is not None and self._sink is not None:
            left_s = self._deadline - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(left_s, self._on_deadline)

    def send(self, response: InferResponse, *, final: bool) -> None:
        sink = self._end() if final else self._sink
        if sink is not None:
            sink.send(response, final=final)

    def finish(self) -> None:
        if (sink := self._end()) is not None:
            sink.finish()

    def fail(self, error: ServingError) -> None:
        if (sink := self._end()) is not None:
            sink.fail(error)

    def _on_deadline(self) -> None:
        text = f"model '{self._model_name}' had not answered by the request's deadline"
        self.fail(DeadlineExceeded(text))
        self._cancel.cancel()

    def _on_cancel(self) -> None:
        if self._window is not None:
            # Whoever asked may not read before it has ended.
            self._window.open()

    def _on_abandoned(self) -> None:
        self._cancel.cancel()
        self.fail(Cancelled(f"the request to model '{self._model_name}' was cancelled"))

    def _end(self) -> Sink | None:
        sink, self._sink = self._sink, None
        if self._window is not None:
            # Whoever waits for room has nobody left to read it.
            self._window.open()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return sink

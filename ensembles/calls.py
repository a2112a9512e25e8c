"""One step's call of its model: as it is, or with time-out, further tries and a fallback.

Everything here runs on the event loop.
"""

import asyncio
from typing import Protocol

from trivet.backends.api import (
    BackendFailed,
    CancelToken,
    DeadlineExceeded,
    InferRequest,
    InferResponse,
    ModelNotFound,
    ModelServer,
    NotFound,
    RequestContext,
    ServingError,
    Unavailable,
)
from trivet.backends.api.value import changed, value
from trivet.ensembles.graph import Step

PASSING = (Unavailable, BackendFailed, DeadlineExceeded)
"""Failures after which another try may succeed."""
REPLACEABLE = (*PASSING, ModelNotFound, NotFound)
"""Failures after which the fallback is asked."""


@value
class Question:
    """What a step asks, and how."""

    request: InferRequest
    context: RequestContext


class Receiver(Protocol):
    """Where a step's answers go."""

    def answered(self, step: Step, response: InferResponse, *, final: bool) -> None:
        """One response."""

    def finished(self, step: Step) -> None:
        """The end, without a further response."""

    def failed(self, step: Step, error: ServingError) -> None:
        """The end, with an error."""


class Call:
    """The sink of a plain call."""

    __slots__ = ("_receiver", "_step")

    def __init__(self, receiver: Receiver, step: Step) -> None:
        self._receiver = receiver
        self._step = step

    def send(self, response: InferResponse, *, final: bool) -> None:
        self._receiver.answered(self._step, response, final=final)

    def finish(self) -> None:
        self._receiver.finished(self._step)

    def fail(self, error: ServingError) -> None:
        self._receiver.failed(self._step, error)


class GuardedCall:
    """Calls a step's model again, or another one, when it fails or takes too long."""

    def __init__(
        self, receiver: Receiver, step: Step, question: Question, server: ModelServer
    ) -> None:
        self._receiver = receiver
        self._step = step
        self._question: Question | None = question
        self._cancel = question.context.cancel
        self._server = server
        self._tries_left = step.settings.retries
        self._is_fallback = False
        self._has_answered = False
        self._timer: asyncio.TimerHandle | None = None
        self._try: _Try | None = None

    def start(self) -> None:
        """The first try."""
        self._begin(self._step.model, self._step.version)

    def _begin(self, model: str, version: int | None) -> None:
        assert self._question is not None, "it has not ended"
        token = CancelToken()
        self._cancel.on_cancel(token.cancel)
        request = changed(self._question.request, model_name=model, model_version=version)
        context = changed(self._question.context, cancel=token)
        self._try = current = _Try(self, token)
        timeout_s = self._step.settings.timeout_s
        if timeout_s:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout_s, self._on_timeout, current)
        self._server.infer(request, context, current)

    def _on_timeout(self, overdue: "_Try") -> None:
        if overdue is not self._try:
            return
        text = f"took longer than its timeout_ms of {self._step.settings.timeout_s * 1000:g}"
        self.failed(overdue, DeadlineExceeded(f"{self._step.title} {text}"))
        overdue.token.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, source: "_Try", response: InferResponse, *, final: bool) -> None:
        """From a try; only the current one counts."""
        if source is not self._try:
            return
        self._has_answered = True
        if final or not self._step.signature.decoupled:
            self._end()
        self._receiver.answered(self._step, response, final=final)

    def finished(self, source: "_Try") -> None:
        """From a try."""
        if source is self._try:
            self._end()
            self._receiver.finished(self._step)

    def failed(self, source: "_Try", error: ServingError) -> None:
        """From a try: another one, if there is any left."""
        if source is not self._try:
            return
        is_over = self._has_answered or self._is_fallback or self._cancel.cancelled
        self._end()
        if not is_over and self._tries_left and isinstance(error, PASSING):
            self._tries_left -= 1
            self._begin(self._step.model, self._step.version)
        elif not is_over and self._step.settings.fallback and isinstance(error, REPLACEABLE):
            self._is_fallback = True
            self._begin(self._step.settings.fallback, None)
        else:
            # Its cancel token refers here, and its tensors are for nobody any more.
            self._question = None
            self._receiver.failed(self._step, error)

    def _end(self) -> None:
        self._stop_timer()
        self._try = None


class _Try:
    """The sink of one try."""

    __slots__ = ("_call", "token")

    def __init__(self, call: GuardedCall, token: CancelToken) -> None:
        self._call = call
        self.token = token

    def send(self, response: InferResponse, *, final: bool) -> None:
        self._call.answered(self, response, final=final)

    def finish(self) -> None:
        self._call.finished(self)

    def fail(self, error: ServingError) -> None:
        self._call.failed(self, error)


def call_model(receiver: Receiver, step: Step, question: Question, server: ModelServer) -> None:
    """Asks a step's model, as carefully as the step's settings say."""
    settings = step.settings
    if settings.timeout_s or settings.retries or settings.fallback:
        GuardedCall(receiver, step, question, server).start()
    else:
        server.infer(question.request, question.context, Call(receiver, step))

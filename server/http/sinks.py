"""Where answers of the core go: to a handler that waits for them, or straight to the client."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    InferRequest,
    InferResponse,
    InvalidRequest,
    RequestContext,
    ServingError,
)
from trivet.backends.api.value import record
from trivet.server.http.answers import (
    CLOSE,
    Answer,
    Buffer,
    begin_of_head,
    fault_answer,
    refusal_of,
    target_text,
    write_behind,
)
from trivet.server.http.body import Body
from trivet.server.http.connection import Connection
from trivet.server.http.head import Head
from trivet.server.http.plan import RequestPlan, Wishes
from trivet.server.models.routing import Admitted

_log = logging.getLogger(__name__)
R = TypeVar("R")


@record
class Asked:
    """What is asked of the core, and how its outputs are wanted."""

    admitted: Admitted
    request: InferRequest
    context: RequestContext
    wishes: Wishes
    plan: RequestPlan | None = None
    """See Decoded."""


@record
class SingleSink:
    """Takes the one response that a request without streaming has room for."""

    _ended: bool = field(default=False, init=False)
    _error: ServingError | None = field(default=None, init=False)
    _num_responses: int = field(default=0, init=False)
    _response: InferResponse | None = field(default=None, init=False)
    _waiter: asyncio.Future[None] | None = field(default=None, init=False)

    def send(self, response: InferResponse, *, final: bool) -> None:
        if self._ended:
            return
        self._num_responses += 1
        self._response = response
        if final or self._num_responses > 1:
            self.finish()

    def finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.on_end()

    def fail(self, error: ServingError) -> None:
        if not self._ended:
            self._error = error
            self.finish()

    def on_end(self) -> None:
        """Called once, by what ends the request; `outcome` tells how."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def result(self, cancel: CancelToken, wrong_count: str) -> InferResponse:
        """Waits for the outcome. Cancels the request when the client goes away."""
        if not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                cancel.cancel()
                raise
        return self.outcome(cancel, wrong_count)

    def outcome(self, cancel: CancelToken, wrong_count: str) -> InferResponse:
        """The response. Raises the request's error, and InvalidRequest with the text `wrong_count`
        when the model sent none or several."""
        if self._error is not None:
            raise self._error
        if self._response is None or self._num_responses != 1:
            cancel.cancel()  # What else the model may have to say is for nobody.
            raise InvalidRequest(f"{wrong_count}, got {self._num_responses}")
        return self._response


@record
class Exchange(SingleSink):
    """A request that is answered by callbacks: all of it has come, and its sink writes the answer.

    aiohttp gives each request a task and several futures, which cost more than a small model
    computes. The connection takes no other request meanwhile.
    """

    _connection: Connection
    head: Head
    request_id: str
    body: Body
    """All of it; behind a plan, the bytes of its tensors."""
    plan: RequestPlan | None = None
    """What its JSON part says, where that is known, or may be when it comes again."""
    asked: Asked | None = field(default=None, init=False)
    """What the core computes; nobody waits for it once the client is gone."""
    _then: Callable[["Exchange"], None] = field(init=False)
    _task: asyncio.Future[Any] = field(init=False)
    _is_answered: bool = field(default=False, init=False)

    def run(self, step: Callable[["Exchange"], None]) -> None:
        """The door of all that happens in a callback: what goes wrong there is the answer."""
        try:
            step(self)
        except ServingError as error:
            self.refuse(refusal_of(error))
        except Exception:  # noqa: BLE001 - a door: logged once, answered without its text
            where = target_text(self.head.message.method, self.head.message.path)
            _log.exception("internal error in request %s to %s", self.request_id, where)
            self.refuse(fault_answer(self.request_id))

    def expect(self, asked: Asked, then: Callable[["Exchange"], None]) -> None:
        """`then` is called when the core has sent the outcome of what it was asked."""
        self.asked = asked
        self._then = then

    def send(self, response: InferResponse, *, final: bool) -> None:
        if not final or self._num_responses:
            SingleSink.send(self, response, final=final)
        elif not self._ended:
            # The usual case written out: the one response of a model.
            self._ended = True
            self._num_responses = 1
            self._response = response
            self.run(self._then)

    def on_end(self) -> None:
        self.run(self._then)

    def after(
        self, work: Coroutine[object, object, R], step: Callable[["Exchange", R], None]
    ) -> None:
        """Goes on with a step, which takes the result of work that waits."""
        self._task = task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: self.run(lambda _: step(self, done.result())))

    def answer(
        self, parts: Sequence[Buffer], content_type: str, headers: Mapping[str, str]
    ) -> None:
        """Sends it, status 200. Nothing where the client is gone."""
        if self.asked is not None and self.asked.admitted.told:
            headers = {**headers, **self.asked.admitted.told}
        size_bytes = sum(map(len, parts))
        begin = begin_of_head(200, size_bytes, content_type, headers)
        self.answer_behind(begin, parts, size_bytes)

    def answer_behind(self, begin: bytes, parts: Sequence[Buffer], size_bytes: int) -> None:
        """The same where it is known how the head begins."""
        self._is_answered = True
        connection = self._connection
        transport = connection.transport
        closes = self.head.should_close or connection.is_leaving
        if transport is not None and not transport.is_closing():
            line = CLOSE if closes else ""
            write_behind(transport, begin, self.request_id, line, parts, size_bytes)
        connection.release(closes=closes)

    def refuse(self, answer: Answer) -> None:
        """Sends an answer that says why not; breaks the connection where another was sent."""
        connection = self._connection
        transport = connection.transport
        if self._is_answered:
            connection.force_close()
            return
        self._is_answered = True
        closes = self.head.should_close or connection.is_leaving
        if transport is not None and not transport.is_closing():
            answer.request_id = self.request_id
            if self.asked is not None:
                answer.told = self.asked.admitted.told
            closes = not answer.write_to(transport, keep_alive=not closes)
        connection.release(closes=closes)

    def give_up(self) -> None:
        """The client is gone."""
        if self.asked is not None:
            self.asked.context.cancel.cancel()


class StreamSink:
    """A queue of responses for a client that reads them one by one.

    Beyond `max_pending` unread responses the request is cancelled: a client that does not read
    must not fill the memory.
    """

    __slots__ = ("_cancel", "_ended", "_error", "_max_pending", "_pending", "_waiter")

    def __init__(self, cancel: CancelToken, max_pending: int) -> None:
        self._cancel = cancel
        self._max_pending = max_pending
        self._pending: deque[InferResponse] = deque()
        self._ended = False
        self._error: ServingError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def send(self, response: InferResponse, *, final: bool) -> None:
        if self._ended:
            return
        if len(self._pending) >= self._max_pending:
            self.fail(
                Cancelled(
                    f"the client left {self._max_pending} responses unread; the request is "
                    "cancelled"
                )
            )
            self._cancel.cancel()
            return
        self._pending.append(response)
        self._ended = final
        self._wake()

    def finish(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error: ServingError) -> None:
        if not self._ended:
            self._error = error
            self.finish()

    @property
    def is_ended(self) -> bool:
        """Whether the last response or an error has come in, read or not."""
        return self._ended

    async def next(self) -> InferResponse | None:
        """The next response, None after the last one. Raises the request's error after the
        responses that came before it."""
        while not self._pending:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pending.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

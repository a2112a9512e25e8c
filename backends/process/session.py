"""The server's dealings with one live instance process: batches out, responses in."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from trivet.backends.api import (
    Asker,
    Batch,
    Cause,
    CheckedRequest,
    InvalidRequest,
    ResponseSender,
    ServingError,
)
from trivet.backends.process.asks import Asks
from trivet.backends.process.channel import ChannelClosed
from trivet.backends.process.ending import Ending
from trivet.backends.process.link import Link, Message, may_be_short
from trivet.backends.process.pulse import BEAT_S, Pulse
from trivet.backends.process.replies import ReplyWatch
from trivet.backends.process.spawn import POLL_S, ChildProcess
from trivet.backends.process.wire import decode_error, decode_result, encode_batch

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_NOTHING = range(0)


class NotDelivered(ChannelClosed):
    """The process was gone before it could have seen the batch: safe to send it to another."""


class Session:
    """From the moment the instance is open to the end of its process.

    `deliver` and `complete` are called by the instance's thread, `handle` and `tick` by the one
    that reads events; `begin` on the event loop in place of `deliver`, where the process can be
    told without waiting. Between a batch's way out and its way back the links are in use.
    """

    def __init__(
        self,
        child: ChildProcess,
        find_asker: Callable[[], Asker | None],
        *,
        is_ready: bool,
        execute_timeout_s: float,
    ) -> None:
        """`find_asker`: the way to other models, None before there is one."""
        self.child = child
        self._is_ready = is_ready
        self._pulse = Pulse(time.monotonic())
        self._execute_timeout_s = execute_timeout_s
        self.has_computed = False
        """Whether it has computed a batch: then a crash is a first one again."""
        self._find_asker = find_asker
        self._asks = Asks(child.events, child.name)
        self._replies = ReplyWatch(child.calls)
        self._is_quick = True
        """Whether the last reply came at once and was small: the event loop may wait for the next.
        """
        self._next_token = 0
        self._sent = _NOTHING
        """The tokens of the batch that is being computed."""
        self._senders: dict[int, ResponseSender] = {}
        """Of decoupled requests without an end, by token."""
        self._computed: dict[int, CheckedRequest] = {}
        """Requests without an end, by token."""
        self._watched: dict[int, CheckedRequest] = {}
        """Those of them that have not been cancelled."""
        self._passed_on_s = 0.0
        """When the process was last told of cancellations."""

    @property
    def poll_timeout_s(self) -> float:
        """How long the reader may sleep without a `tick`."""
        return POLL_S if self._senders else BEAT_S

    @property
    def is_silent(self) -> bool:
        """Whether the process has not been heard for so long that it is not ready."""
        return self._pulse.is_silent

    @property
    def silent_s(self) -> float:
        """How long the process has not been heard."""
        return self._pulse.silent_s

    @property
    def is_ready(self) -> bool:
        """Whether the process lives and its model says that it can compute."""
        return self._is_ready and not self._pulse.is_silent

    def begin(
        self, batch: Batch, loop: "AbstractEventLoop", replied: Callable[[bool], None]
    ) -> bool:
        """See ComputesElsewhere: False where the batch is large, or will take long, or will be
        answered later; then `deliver` is to be called."""
        if not self._is_quick or batch.senders:
            return False
        if not may_be_short(request.inputs.values() for request in batch.requests):
            return False
        if not self.child.in_use.acquire(blocking=False):
            return False
        if not self._replies.watches(loop) or not self._try_send(batch):
            self._drop()
            return False
        self._replies.expect(replied)
        return True

    def deliver(self, batch: Batch) -> None:
        """Sends the batch; `complete` follows. Raises NotDelivered, or InvalidRequest for what
        cannot be sent."""
        with ExitStack() as undo:
            self.child.in_use.acquire()
            undo.callback(self._drop)
            try:
                self._send(batch)
            except ChannelClosed as error:
                raise NotDelivered(str(error)) from error
            except (TypeError, ValueError) as error:
                raise InvalidRequest(f"requests cannot be sent to the model: {error}") from error
            undo.pop_all()

    def complete(self, batch: Batch) -> None:
        """Waits for the reply. Raises ChannelClosed, or the model's error."""
        tokens, self._sent = self._sent, _NOTHING
        try:
            reply = self._replies.take()
            if reply is None:
                watched = {} if batch.senders else dict(zip(tokens, batch.requests, strict=True))
                reply = self._await_reply(watched)
            if not batch.senders:
                self._forget(tokens)
        finally:
            self.child.in_use.release()
        self.has_computed = True
        decode_result(reply, batch)

    def close(self, limit_s: float) -> None:
        """Lets the model finalize and its process end. Raises ChannelClosed when it is gone."""
        with self.child.in_use:
            self.child.calls.send({"op": "close"})
        self.child.finish(limit_s)

    def handle(self, message: Message) -> None:
        """What the process says outside of replies."""
        self._pulse.heard()
        header = message.header
        match header["op"]:
            case "ready":
                self._is_ready = header["ready"]
            case "response" if sender := self._sender(header["token"], ends=header["final"]):
                outputs = [run.tensors[0] for run in message.runs]
                parameters = header.get("parameters")
                sender.send(outputs, final=header["final"], parameters=parameters)
            case "release":
                self._sender(header["token"], ends=True)
            case "finish" if sender := self._sender(header["token"], ends=True):
                sender.finish()
            case "fail" if sender := self._sender(header["token"], ends=True):
                sender.fail(decode_error(header))
            case "ask" | "ask_cancel" | "ask_room" | "order":
                self._asks.handle(message, self._find_asker(), self._computed)

    def tick(self) -> None:
        """Passes on cancellations of open requests and memory that clients have finished with, and
        looks whether the process lives."""
        now_s = time.monotonic()
        self._pulse.look(now_s)
        if not self._senders:
            return
        with suppress(ChannelClosed):
            self.child.events.send_news()
            # It looks at each of them, and comes after each response of any.
            if now_s - self._passed_on_s >= POLL_S:
                self._passed_on_s = now_s
                _pass_on_cancellations(self.child.events, self._watched)

    def end(self, error: ServingError) -> None:
        """Fails what is still open: its process is gone."""
        self._asks.end(self._find_asker())
        while self._senders:
            _, sender = self._senders.popitem()
            sender.fail(error)

    def _sender(self, token: int, *, ends: bool) -> ResponseSender | None:
        if not ends:
            return self._senders.get(token)
        self._watched.pop(token, None)
        self._computed.pop(token, None)
        return self._senders.pop(token, None)

    def _forget(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._computed.pop(token, None)

    def _open(
        self, senders: dict[int, ResponseSender], requests: dict[int, CheckedRequest]
    ) -> None:
        self._watched.update(requests)
        self._senders.update(senders)
        for token, request in requests.items():
            if request.window is not None:
                self._asks.start()
                request.window.pass_on(partial(self._give_room, token))
        # From now on the reader must not sleep for long.
        self.child.wake()

    def _give_room(self, token: int, is_open: bool) -> None:  # noqa: FBT001 - a Window's callback
        """The event loop has dealt with a response: the process may send another one."""
        self._asks.put({"op": "room", "token": token, "open": is_open})

    def _send(self, batch: Batch) -> None:
        tokens = self._register(batch)
        if batch.senders:
            self._open(
                dict(zip(tokens, batch.senders, strict=True)),
                dict(zip(tokens, batch.requests, strict=True)),
            )
        batch.gathered_bytes += self.child.calls.send(*encode_batch(batch, tokens[0]))
        batch.mark_gathered()

    def _try_send(self, batch: Batch) -> bool:
        """Sends it if that is soon done; what goes wrong goes wrong again for `deliver`."""
        try:
            num_copied = self.child.calls.try_send(*encode_batch(batch, self._register(batch)[0]))
        except (ChannelClosed, OSError, TypeError, ValueError):
            return False
        if num_copied is None:
            return False
        batch.gathered_bytes += num_copied
        batch.mark_gathered()
        return True

    def _register(self, batch: Batch) -> range:
        """New tokens for its requests, in a row."""
        first = self._next_token
        self._next_token += len(batch.requests)
        tokens = self._sent = range(first, self._next_token)
        self._computed.update(zip(tokens, batch.requests, strict=True))
        return tokens

    def _drop(self) -> None:
        """It was not sent after all."""
        for token in self._sent:
            self._sender(token, ends=True)
        self._sent = _NOTHING
        self.child.in_use.release()

    def _await_reply(self, watched: dict[int, CheckedRequest]) -> Message:
        self._is_quick = True
        limit_s = self._execute_timeout_s
        ends_s = time.monotonic() + limit_s
        while True:
            try:
                reply = self.child.calls.receive()
            except BlockingIOError:
                self._is_quick = False
                if time.monotonic() > ends_s:
                    text = f"it computed for {limit_s:g} s, model parameter execute_timeout_s"
                    self.child.condemn(Ending(Cause.TIMEOUT, text))
                with suppress(ChannelClosed):
                    _pass_on_cancellations(self.child.events, watched)
            else:
                self._is_quick = self._is_quick and "region" not in reply.header
                return reply


def _pass_on_cancellations(events: Link, watched: dict[int, CheckedRequest]) -> None:
    """Tells the process which requests nobody waits for any more, and watches those no longer."""
    for token, request in tuple(watched.items()):
        if request.cancel.cancelled and events.channel.try_send({"op": "cancel", "token": token}):
            watched.pop(token, None)

"""The server's dealings with one live instance process: batches out, responses in."""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

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
from trivet.backends.process.link import Link, Message
from trivet.backends.process.pulse import BEAT_S, Pulse
from trivet.backends.process.spawn import POLL_S, ChildProcess
from trivet.backends.process.wire import decode_error, decode_result, encode_batch


class NotDelivered(ChannelClosed):
    """The process was gone before it could have seen the batch: safe to send it to another."""


class Session:
    """From the moment the instance is open to the end of its process.

    `run` is called by the instance's thread, `handle` and `tick` by the one that reads events.
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
        self._tokens = itertools.count()
        self._senders: dict[int, ResponseSender] = {}
        """Of decoupled requests without an end, by token."""
        self._computed: dict[int, CheckedRequest] = {}
        """Requests without an end, by token."""
        self._watched: dict[int, CheckedRequest] = {}
        """Those of them that have not been cancelled."""

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

    def run(self, batch: Batch) -> None:
        """Has the batch computed. Raises NotDelivered, ChannelClosed, or the model's error."""
        with self.child.in_use:
            tokens = [next(self._tokens) for _ in batch.requests]
            watched = dict(zip(tokens, batch.requests, strict=True))
            self._computed.update(watched)
            if batch.senders:
                self._open(dict(zip(tokens, batch.senders, strict=True)), watched)
            self._deliver(batch, tokens)
            reply = self._await_reply({} if batch.senders else dict(watched))
            if not batch.senders:
                self._forget(tokens)
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
        self._pulse.look(time.monotonic())
        if not self._senders:
            return
        with suppress(ChannelClosed):
            self.child.events.send_news()
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

    def _deliver(self, batch: Batch, tokens: list[int]) -> None:
        header, runs = encode_batch(batch, tokens)
        try:
            batch.gathered_bytes += self.child.calls.send(header, runs)
        except ChannelClosed as error:
            for token in tokens:
                self._sender(token, ends=True)
            raise NotDelivered(str(error)) from error
        except (TypeError, ValueError) as error:
            for token in tokens:
                self._sender(token, ends=True)
            raise InvalidRequest(f"requests cannot be sent to the model: {error}") from error
        batch.mark_gathered()

    def _await_reply(self, watched: dict[int, CheckedRequest]) -> Message:
        limit_s = self._execute_timeout_s
        ends_s = time.monotonic() + limit_s
        while True:
            try:
                return self.child.calls.receive()
            except BlockingIOError:
                if time.monotonic() > ends_s:
                    text = f"it computed for {limit_s:g} s, model parameter execute_timeout_s"
                    self.child.condemn(Ending(Cause.TIMEOUT, text))
                with suppress(ChannelClosed):
                    _pass_on_cancellations(self.child.events, watched)


def _pass_on_cancellations(events: Link, watched: dict[int, CheckedRequest]) -> None:
    """Tells the process which requests nobody waits for any more, and watches those no longer."""
    for token, request in tuple(watched.items()):
        if request.cancel.cancelled and events.channel.try_send({"op": "cancel", "token": token}):
            watched.pop(token, None)

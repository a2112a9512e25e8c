"""What an instance process asks of the server's other models: the server's side.

The keeper thread reads the questions, the event loop answers them, and a thread of its own writes
the answers: it may wait for the process to read, which neither of the others can afford.
"""

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from trivet.backends.api import (
    Asker,
    CheckedRequest,
    InferResponse,
    InvalidRequest,
    ModelNotReady,
    RequestContext,
    ServingError,
    Tensor,
)
from trivet.backends.process.channel import ChannelClosed, Header
from trivet.backends.process.link import Link, Message, may_be_short
from trivet.backends.process.wire import decode_context, decode_question, encode_error

log = logging.getLogger(__name__)

_Outgoing = tuple[Header, Sequence[Sequence[Tensor]]]


class Asks:
    """The open questions of one process. `handle` and `end` are called by its keeper."""

    def __init__(self, events: Link, name: str) -> None:
        self._events = events
        self._name = name
        self._open: dict[int, RequestContext] = {}
        self._outbox: queue.SimpleQueue[_Outgoing | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._starting = threading.Lock()
        self._num_waiting = 0
        """Messages given to the writing thread, which counts what it has written: while the two
        differ, nothing may overtake them."""
        self._num_written = 0

    def handle(
        self, message: Message, asker: Asker | None, computed: Mapping[int, CheckedRequest]
    ) -> None:
        """A question, or that one is not to be answered any more. `computed`: the requests that the
        process computes, by token."""
        self.start()
        header = message.header
        match header["op"]:
            case "ask":
                parents = [computed[each] for each in message.header["parents"] if each in computed]
                self._ask(message, asker, parents)
            case "ask_cancel" if asker is not None and header["token"] in self._open:
                asker.cancel(self._open[header["token"]])
            case "ask_room" if asker is not None and header["token"] in self._open:
                asker.give_room(self._open[header["token"]], header["count"])
            case "order":
                self._carry_out(header, asker)

    def start(self) -> None:
        """Before the first `put`, from any thread."""
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write, name=f"answers to {self._name}", daemon=True
                )
                self._writer.start()

    def end(self, asker: Asker | None) -> None:
        """The process is gone: nobody waits for what it has asked."""
        while self._open and asker is not None:
            with suppress(KeyError):  # answered in between
                asker.cancel(self._open.popitem()[1])
        self._outbox.put(None)
        if self._writer is not None:
            self._writer.join()

    def _ask(
        self, message: Message, asker: Asker | None, parents: Sequence[CheckedRequest]
    ) -> None:
        header = message.header["request"]
        token = header["token"]
        answers = _Answers(self, token)
        if asker is None:
            answers.fail(_too_early())
            return
        context = self._open[token] = decode_context(header, parents)
        asker.infer(decode_question(header, message.runs), context, parents, answers)

    def _carry_out(self, order: Header, asker: Asker | None) -> None:
        token, future = order["token"], Future[Any]()
        if asker is None:
            future.set_exception(_too_early())
        elif order["what"] == "is_ready":
            future = asker.is_ready(order["name"], order["version"])
        elif order["what"] == "load":
            future = asker.load(order["name"], order["config"])
        else:
            future = asker.unload(order["name"], unload_dependents=order["dependents"])
        future.add_done_callback(lambda done: self.put(_ordered(token, done)))

    def put(self, header: Header, tensors: Sequence[Tensor] = ()) -> None:
        """Sends a message: at once, if it is short and nothing is before it."""
        runs = [[tensor] for tensor in tensors]
        if self._num_waiting == self._num_written:
            try:
                if may_be_short(runs) and self._events.try_send(header, runs) is not None:
                    return
            except ChannelClosed:
                return
            except (OSError, TypeError, ValueError) as error:
                header, runs = self._failed(header, error), []
        self._num_waiting += 1
        self._outbox.put((header, runs))

    def forget(self, token: int) -> None:
        """It has its end."""
        self._open.pop(token, None)

    def _write(self) -> None:
        """The writing thread. What cannot be sent goes nowhere: the keeper sees why."""
        while (outgoing := self._outbox.get()) is not None:
            self._send(*outgoing)
            del outgoing
            self._num_written += 1

    def _send(self, header: Header, runs: Sequence[Sequence[Tensor]]) -> None:
        try:
            self._events.send(header, runs)
        except ChannelClosed:
            return
        except (OSError, TypeError, ValueError) as error:
            with suppress(ChannelClosed):
                self._events.send(self._failed(header, error))

    def _failed(self, header: Header, error: Exception) -> Header:
        """What takes the place of an answer that cannot be sent."""
        log.error("an answer to %s cannot be sent: %s", self._name, error)
        failed = InvalidRequest(f"the answer cannot be sent to this model: {error}")
        return {"op": "answer_error", "token": header["token"], **encode_error(failed)}


class _Answers:
    """The sink of one question. Called on the event loop."""

    __slots__ = ("_asks", "_token")

    def __init__(self, asks: Asks, token: int) -> None:
        self._asks = asks
        self._token = token

    def send(self, response: InferResponse, *, final: bool) -> None:
        header: Header = {
            "op": "answer", "token": self._token, "final": final, "id": response.id,
            "model": response.model_name, "version": response.model_version,
        }  # fmt: skip
        if response.parameters:
            header["parameters"] = dict(response.parameters)
        if final:
            self._asks.forget(self._token)
        self._asks.put(header, response.outputs)

    def finish(self) -> None:
        self._asks.forget(self._token)
        self._asks.put({"op": "answer_end", "token": self._token})

    def fail(self, error: ServingError) -> None:
        self._asks.forget(self._token)
        self._asks.put({"op": "answer_error", "token": self._token, **encode_error(error)})


def _ordered(token: int, done: "Future[Any]") -> Header:
    header: Header = {"op": "ordered", "token": token}
    error = None if done.cancelled() else done.exception()
    if error is None:
        return {**header, "result": None if done.cancelled() else done.result()}
    if isinstance(error, ServingError):
        return {**header, **encode_error(error)}
    log.error("a model's order failed", exc_info=error)
    return {**header, **encode_error(ModelNotReady("the server could not do it; see its log"))}


def _too_early() -> ServingError:
    return ModelNotReady("other models can be asked once this model serves")

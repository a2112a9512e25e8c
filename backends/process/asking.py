"""The instance process's way to other models: asks the server over the link, hands answers on."""

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from trivet.backends.api import (
    CheckedRequest,
    InferRequest,
    InferResponse,
    InvalidRequest,
    RequestContext,
    Sink,
    Unavailable,
)
from trivet.backends.api.model_server import cancel_with_all
from trivet.backends.process.channel import ChannelClosed, Header
from trivet.backends.process.link import Link, Message
from trivet.backends.process.remote import RemoteCancelToken
from trivet.backends.process.wire import decode_error, encode_request


class RemoteAsker:
    """An `Asker` in an instance process. Any thread may ask; `handle` is the listening thread's."""

    owns_process = True

    def __init__(self, events: Link) -> None:
        self._events = events
        self._tokens = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, tuple[RequestContext, Sink]] = {}
        self._orders: dict[int, Future[Any]] = {}

    # -- Asker ---------------------------------------------------------------------------------

    def infer(
        self,
        request: InferRequest,
        context: RequestContext,
        parents: Sequence[CheckedRequest],
        sink: Sink,
    ) -> None:
        """See Asker."""
        token = next(self._tokens)
        with self._lock:
            self._open[token] = (context, sink)
        header: Header = {
            "op": "ask",
            "request": encode_request(request, context, token),
            "parents": [
                parent.cancel.token
                for parent in parents
                if isinstance(parent.cancel, RemoteCancelToken)
            ],
        }
        try:
            self._events.send(header, [[tensor] for tensor in request.inputs.values()])
        except ChannelClosed:
            self._end(token)
            sink.fail(Unavailable("the server has ended the connection to this model"))
            return
        except (TypeError, ValueError) as error:
            self._end(token)
            sink.fail(InvalidRequest(f"the request cannot be sent to the server: {error}"))
            return
        cancel_with_all(context.cancel, [parent.cancel for parent in parents])
        context.cancel.on_cancel(lambda: self._pass_on_cancel(token))

    def cancel(self, context: RequestContext) -> None:
        """See Asker."""
        context.cancel.cancel()

    def give_room(self, context: RequestContext, num_responses: int) -> None:
        """See Asker."""
        with self._lock:
            found = [token for token, (asked, _) in self._open.items() if asked is context]
        for token in found:
            # If the server is gone, nobody sends any more.
            with suppress(ChannelClosed):
                self._events.send({"op": "ask_room", "token": token, "count": num_responses})

    def is_ready(self, name: str, version: int | None) -> "Future[bool]":
        """See Asker."""
        return self._order({"what": "is_ready", "name": name, "version": version})

    def load(self, name: str, config_json: str | None) -> "Future[None]":
        """See Asker."""
        return self._order({"what": "load", "name": name, "config": config_json})

    def unload(self, name: str, *, unload_dependents: bool) -> "Future[None]":
        """See Asker."""
        return self._order({"what": "unload", "name": name, "dependents": unload_dependents})

    def _order(self, order: Header) -> "Future[Any]":
        token = next(self._tokens)
        future: Future[Any] = Future()
        self._orders[token] = future
        self._events.send({"op": "order", "token": token, **order})
        return future

    def _pass_on_cancel(self, token: int) -> None:
        if token in self._open:
            # If the server is gone, so is what would be cancelled.
            with suppress(ChannelClosed):
                self._events.send({"op": "ask_cancel", "token": token})

    # -- answers -------------------------------------------------------------------------------

    def handle(self, message: Message) -> None:
        """What the server says of what was asked."""
        header = message.header
        token = header.get("token", -1)
        match header["op"]:
            case "answer" if asked := self._asked(token, ends=header["final"]):
                asked[1].send(_response(message), final=header["final"])
            case "answer_end" if asked := self._asked(token, ends=True):
                asked[1].finish()
            case "answer_error" if asked := self._asked(token, ends=True):
                asked[1].fail(decode_error(header))
            case "ordered" if future := self._orders.pop(token, None):
                if "error" in header:
                    future.set_exception(decode_error(header))
                else:
                    future.set_result(header["result"])

    def _asked(self, token: int, *, ends: bool) -> tuple[RequestContext, Sink] | None:
        return self._end(token) if ends else self._open.get(token)

    def _end(self, token: int) -> tuple[RequestContext, Sink] | None:
        with self._lock:
            return self._open.pop(token, None)


def _response(message: Message) -> InferResponse:
    header = message.header
    outputs = [run.tensors[0] for run in message.runs]
    return InferResponse(
        header["model"], header["version"], header["id"], outputs, header.get("parameters", {})
    )

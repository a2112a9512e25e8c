"""The instance process's side of what lives in the server: senders, cancel tokens, the log."""

import logging
import threading
from collections.abc import Callable

from trivet.backends.api import (
    BackendFailed,
    CancelToken,
    CheckedRequest,
    Parameters,
    ServingError,
    Tensor,
    Window,
)
from trivet.backends.api.errors import sendable
from trivet.backends.process.channel import ChannelClosed, Header
from trivet.backends.process.link import Link
from trivet.backends.process.wire import encode_error

log = logging.getLogger(__name__)


class RemoteCancelToken(CancelToken):
    """One that is cancelled by another thread than the one that asks to be told."""

    __slots__ = ("_lock", "token")

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token
        """The request's, by which the server knows it."""
        self._lock = threading.RLock()

    def cancel(self) -> None:
        with self._lock:
            super().cancel()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            super().on_cancel(callback)


class OpenRequests:
    """Cancel tokens of the requests that have no end yet. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancels: dict[int, CancelToken] = {}
        self._windows: dict[int, Window] = {}
        self._newest = -1
        self._early: set[int] = set()
        self._opened: set[int] = set()
        """Whose windows were opened before they were here."""

    def register(self, token: int) -> CancelToken:
        cancel = RemoteCancelToken(token)
        with self._lock:
            self._cancels[token] = cancel
            self._newest = max(self._newest, token)
            is_early = token in self._early
            self._early.discard(token)
        if is_early:
            cancel.cancel()
        return cancel

    def watch(self, token: int, window: Window) -> None:
        """Room in this window is given by `give_room`."""
        with self._lock:
            self._windows[token] = window
            cancel = self._cancels.get(token)
            is_opened = token in self._opened
            self._opened.discard(token)
        if is_opened:
            window.open()
        if cancel is not None:
            cancel.on_cancel(window.open)

    def give_room(self, token: int, *, is_open: bool) -> None:
        """The server has dealt with a response, or takes no more."""
        with self._lock:
            window = self._windows.get(token)
            if window is None and is_open and (token > self._newest or token in self._cancels):
                self._opened.add(token)
        if window is not None and is_open:
            window.open()
        elif window is not None:
            window.give()

    def cancel(self, token: int) -> None:
        """Cancels it if it is open, and remembers that if it is still on its way here."""
        with self._lock:
            cancel = self._cancels.get(token)
            if cancel is None and token > self._newest:
                self._early.add(token)
        if cancel is not None:
            cancel.cancel()

    def forget(self, token: int) -> None:
        with self._lock:
            self._cancels.pop(token, None)
            self._windows.pop(token, None)
            self._opened.discard(token)


class RemoteSender:
    """The `ResponseSender` of a request whose client waits in the server process.

    Let go of without an end, it ends the request with an error: its client would wait for ever.
    """

    def __init__(
        self, events: Link, requests: OpenRequests, token: int, request: CheckedRequest
    ) -> None:
        self._events = events
        self._requests = requests
        self._token = token
        self._model_name = request.model_name
        self._window = request.window
        if self._window is not None:
            requests.watch(token, self._window)
        self._is_ended = False

    def __del__(self) -> None:
        name = self._model_name
        try:
            self.fail(BackendFailed(f"model '{name}' dropped the response sender without an end"))
        except ChannelClosed:
            return

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        if self._window is not None and not self._is_ended:
            self._window.take()
        header: Header = {"op": "response", "final": final}
        if parameters:
            header["parameters"] = dict(parameters)
        self._send(header, [[tensor] for tensor in outputs], final=final)

    def finish(self) -> None:
        self._send({"op": "finish"}, final=True)

    def fail(self, error: ServingError) -> None:
        self._send({"op": "fail", **encode_error(error)}, final=True)

    def release(self) -> None:
        """The request is to run again: its next pass will have a sender of its own."""
        self._send({"op": "release"}, final=True)

    def _send(self, header: Header, runs: list[list[Tensor]] | None = None, *, final: bool) -> None:
        if self._is_ended:
            return
        if final:
            self._is_ended = True
            self._requests.forget(self._token)
        header["token"] = self._token
        try:
            self._events.send(header, runs or ())
        except ChannelClosed:
            raise
        except Exception:
            # The door of responses: its client would wait for ever.
            log.exception("a response of model '%s' cannot be sent", self._model_name)
            self._end_unsent()

    def _end_unsent(self) -> None:
        self._is_ended = True
        self._requests.forget(self._token)
        error = BackendFailed(
            f"a response of model '{self._model_name}' cannot be sent; the server log has the "
            "details"
        )
        self._events.send({"op": "fail", "token": self._token, **encode_error(error)})


class LogForwarder(logging.Handler):
    """Sends log records to the server, which knows where its log goes."""

    def __init__(self, events: Link) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = sendable(self.format(record))
            self._events.send({"op": "log", "level": record.levelno, "text": text})
        except (ChannelClosed, TypeError, ValueError):
            self.handleError(record)

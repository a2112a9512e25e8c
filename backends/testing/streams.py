"""What the decoupled test backends share: a thread per request that sends while execute returns."""

import logging
import threading
from collections.abc import Callable, Iterator

from trivet.backends.api import BackendFailed, Batch, CheckedRequest, ResponseSender, Tensor

log = logging.getLogger(__name__)

Stream = Callable[[CheckedRequest, threading.Event], Iterator[list[Tensor]]]
"""The responses of one request; the event says that the instance is being closed."""


class StreamInstance:
    """Runs a `Stream` for each request of a batch, in threads that it owns until `close`."""

    def __init__(self, stream: Stream, wait_s: Callable[[CheckedRequest], float]) -> None:
        self._stream = stream
        self._wait_s = wait_s
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def execute(self, batch: Batch) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for request, sender in zip(batch.requests, batch.senders, strict=True):
            thread = threading.Thread(
                target=self._send, args=(request, sender), name="test-stream", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._closed.wait(max(self._wait_s(request) for request in batch.requests))

    def _send(self, request: CheckedRequest, sender: ResponseSender) -> None:
        try:
            for outputs in self._stream(request, self._closed):
                if request.cancel.cancelled or self._closed.is_set():
                    break
                sender.send(outputs)
            sender.finish()
        # The door of this thread: nobody above it could answer the request.
        except Exception:
            log.exception("a test stream failed")
            sender.fail(BackendFailed("the test stream failed; the server log has the details"))

    def is_ready(self) -> bool:
        return not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

"""A descriptor that makes `poll` return, safe to use by threads that do not own it."""

import os
import threading


class Wakeup:
    """Signalled by any thread, polled and closed by one. After `close`, `signal` does nothing."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._is_closed = False

    def signal(self) -> None:
        # Under the lock: once closed, the number may be somebody else's file.
        with self._lock:
            if not self._is_closed:
                os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        os.eventfd_read(self.fd)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            os.close(self.fd)

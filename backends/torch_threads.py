"""How many threads PyTorch computes with: one number for a process, whichever backends share it."""

import logging
import threading

import torch

log = logging.getLogger(__name__)


class TorchThreads:
    """Owns that number, but for processes that a language model's engine has for itself.

    The first model opened sets it by its placement; one whose config names a number sets it anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False

    def use(self, cpu_threads: int, *, asked: int = 0) -> None:
        """A model is opened that is placed on so many; `asked`: by its config, 0 for nothing."""
        with self._lock:
            if self._is_set and not asked:
                return
            self._is_set = True
            torch.set_num_threads(asked or max(1, cpu_threads))
            log.info("PyTorch computes with %d threads", torch.get_num_threads())

    def use_between(self, asked: int) -> None:
        """The number between operations, which can be set once, before the first of them."""
        try:
            torch.set_num_interop_threads(asked)
        except RuntimeError:
            log.warning(
                "PyTorch keeps %d inter-op threads: they can be set only before the first use",
                torch.get_num_interop_threads(),
            )


THREADS = TorchThreads()
"""Of this process."""

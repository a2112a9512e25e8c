"""How many threads PyTorch computes with: one number for a process, whichever backends share it."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

log = logging.getLogger(__name__)


class TorchThreads:
    """Owns that number, but for processes that a language model's engine has for itself.

    The first model opened sets it by its placement; one whose config names a number sets it anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self.usual = torch.get_num_threads()
        """What threads compute with that have not asked for another number."""
        self._keeper = ThreadPoolExecutor(1, "torch threads")

    def use(self, cpu_threads: int, *, asked: int = 0) -> None:
        """A model is opened that is placed on so many; `asked`: by its config, 0 for nothing."""
        with self._lock:
            if self._is_set and not asked:
                return
            self._is_set = True
            self.usual = asked or max(1, cpu_threads)
            torch.set_num_threads(self.usual)
            log.info("PyTorch computes with %d threads", torch.get_num_threads())

    def have(self, num_threads: int) -> None:
        """The calling thread computes with so many from now on; others keep what they have."""
        # A thread's first look gives it the usual number, which would undo what is set before.
        if torch.get_num_threads() == num_threads:
            return
        with self._lock:
            torch.set_num_threads(num_threads)
            # That counts for threads that have not computed yet, too, unless another one sets it.
            self._keeper.submit(torch.set_num_threads, self.usual).result()

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

"""Mappings of files that others may shorten while they are read (`shm_guard.c`)."""

import ctypes
import mmap
from functools import cache
from pathlib import Path

import numpy as np

LIBRARY = Path(__file__).with_name("_shm_guard.so")


@cache
def load_guard() -> ctypes.CDLL | None:
    """The compiled handler, in place; None where it was not built: nothing may be mapped then."""
    if not LIBRARY.exists():
        return None
    guard = ctypes.CDLL(str(LIBRARY))
    guard.guard_add.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return guard if guard.guard_install() else None


class GuardedMapping(mmap.mmap):
    """A mapping that reads as zeros where its file has ended meanwhile, instead of killing us."""

    _number = -1
    _guard: ctypes.CDLL | None = None

    def guard(self, guard: ctypes.CDLL) -> bool:
        """Whether there was room for one more."""
        address = np.frombuffer(self, np.uint8).__array_interface__["data"][0]
        self._number = guard.guard_add(address, len(self))
        self._guard = guard
        return self._number >= 0

    def __del__(self) -> None:
        # Before the memory is given back, and may become something else.
        if self._guard is not None:
            self._guard.guard_remove(self._number)

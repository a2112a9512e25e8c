"""Memory that was freed, given back to the system."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Pages that the C library keeps for later. Takes milliseconds, in a thread."""
    with suppress(OSError, AttributeError):  # another C library keeps them
        ctypes.CDLL("libc.so.6").malloc_trim(0)

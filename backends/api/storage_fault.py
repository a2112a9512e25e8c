"""Faults of disks and mounts, told from faults of what lies on them: these pass by themselves, and
no file changes when they do."""

import errno
import os

_CODES = frozenset(
    {
        errno.EIO,
        errno.EACCES,  # a change of permissions is no change of the file
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.ENOTCONN,  # a file system whose process is gone
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_TEXTS = tuple(map(os.strerror, sorted(_CODES)))


def storage_fault(error: BaseException) -> str:
    """The system's words for why the same files may be read well later; empty where they may not.

    Frameworks and other processes hand on the words alone, so these count as much as the number.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _CODES:
            return os.strerror(seen.errno)
        found = next((text for text in _TEXTS if text in str(seen)), "")
        if found:
            return found
        # Also of errors that were raised `from None`.
        seen = seen.__cause__ or seen.__context__
    return ""

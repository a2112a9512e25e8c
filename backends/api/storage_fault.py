"""Faults of disks and mounts, told from faults of what lies on them: these pass by themselves, and
no file changes when they do."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from trivet.backends.api.errors import ServingError, UnreadableFiles

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
_TEXTS = tuple(map(os.strerror, sorted(_CODES - {errno.ETIMEDOUT})))
"""Not those of a time-out, which others than disks have, too."""
_OF_DISKS_ALONE = frozenset({errno.EIO, errno.ESTALE})


def storage_fault(error: BaseException) -> str:
    """The system's words for why the same files may be read well later; empty where they may not.

    Looks at the error and all it comes from, which `from None` ends. Errors of libraries hand on
    the system's words alone, so these count as much as its number. They do not in a ServingError:
    its text may quote anybody, a model's own code or another process, which has judged by itself.
    """
    for each in _origins(error):
        if isinstance(each, OSError) and each.errno is not None:
            if each.errno in _CODES:
                return os.strerror(each.errno)
        elif not isinstance(each, ServingError):
            found = next((text for text in _TEXTS if text in str(each)), "")
            if found:
                return found
    return ""


def storage_fault_below(folder: Path, error: BaseException) -> str:
    """The same for an error of a model's own code, which opens databases, sockets and secrets, too:
    only files of the model's `folder` count, and what none but disks give. (A read that fails names
    no file.)"""
    roots = (folder.absolute(), folder.resolve())
    for each in _origins(error):
        if not isinstance(each, OSError) or each.errno not in _CODES:
            continue
        file = _file_of(each)
        is_ours = file is not None and any(file.is_relative_to(root) for root in roots)
        if is_ours or (each.filename is None and each.errno in _OF_DISKS_ALONE):
            return os.strerror(each.errno)
    return ""


def judged(error: ServingError) -> ServingError:
    """The error as UnreadableFiles where a disk is at fault, for who learns no more than its class
    and text."""
    if isinstance(error, UnreadableFiles) or not storage_fault(error):
        return error
    return UnreadableFiles(error.message)


def _origins(error: BaseException) -> Iterator[BaseException]:
    """The error and what it comes from. Own causes, also by a detour, are met once."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _file_of(error: OSError) -> Path | None:
    name = error.filename
    if not isinstance(name, str | bytes | os.PathLike):
        return None  # a file descriptor's number
    # Links are not followed: weights may lie elsewhere.
    return Path(os.path.normpath(Path(os.fsdecode(name)).absolute()))

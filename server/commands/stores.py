"""`--remote-cache` of the verbs about what has been pulled, and what goes wrong there in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trivet.server.commands.client import Command
from trivet.server.commands.exits import DiskFails, NobodyAnswers, NotThere
from trivet.server.remote.pulled import Pulls
from trivet.server.remote.source import RemoteError, Unreachable
from trivet.server.settings import Settings

_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)


def remote_cache_option(command: Command) -> Command:
    """The same folder as a server's."""
    option = click.option(
        "--remote-cache",
        default="",
        envvar="TRIVET_REMOTE_CACHE",
        help="folder that keeps what is pulled; default: trivet in the user's cache folder",
    )
    return option(command)


def opened(folder: str) -> Pulls:
    """What is in the folder."""
    with told():
        return Pulls(Settings(remote_cache=folder))


@contextmanager
def told() -> Iterator[None]:
    """Gives what goes wrong its exit code."""
    try:
        yield
    except Unreachable as error:
        raise NobodyAnswers(str(error)) from None
    except RemoteError as error:
        cause = error.__cause__
        if isinstance(cause, OSError):
            raise DiskFails(
                f"{error}; what has come stays, and the next pull goes on there"
            ) from None
        raise NotThere(str(error)) from None
    except OSError as error:
        if error.errno not in _OF_DISK:
            raise
        place = Path(error.filename).parent if error.filename else "the folder"
        raise DiskFails(f"{place} cannot be written to: {error.strerror}") from None

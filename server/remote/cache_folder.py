"""Where files from elsewhere are kept on this machine, and their cache there."""

import os
from pathlib import Path
from threading import Event

from trivet.server.remote.cache import Cache
from trivet.server.remote.source import RemoteError
from trivet.server.remote.tree import remove_abandoned
from trivet.server.settings import Settings


def cache_folder(settings: Settings) -> Path:
    """`--remote-cache`, or where users' programs keep what can be fetched again. Raises
    RemoteError."""
    given = settings.remote_cache
    try:
        return (Path(given).expanduser() if given else _default_folder()).absolute()
    except RuntimeError:
        raise RemoteError(
            "files from elsewhere are kept in the home of the server's user, who has none; let "
            "--remote-cache name a folder"
        ) from None


def open_cache(settings: Settings, stop: Event) -> Cache:
    """The cache there, without what servers have left that are gone. Raises RemoteError."""
    folder = cache_folder(settings)
    try:
        cache = Cache(folder, settings.remote_cache_size, stop)
    except OSError as error:
        raise RemoteError(
            f"the folder for files from elsewhere, '{folder}', cannot be made: "
            f"{error.strerror}; choose another one (--remote-cache)"
        ) from error
    remove_abandoned(cache)
    return cache


def _default_folder() -> Path:
    """By the XDG Base Directory Specification."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "trivet"

"""Environments that have been made, kept in a folder for every server of the user.

    KEY        a link to the folder of an environment that is complete
    KEY.XXXX   that folder; without a link to it, one whose making was cut off
    KEY.lock   held by whoever makes it
    KEY.used   held by every server that has used it, as long as that runs; its time is that of the
               last use, its content the environment's size

An environment knows its own path, so it is made where it stays. The link is what appears at once.
"""

import errno
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.backends.api import Environment, LoadFailed, Making, Recipe
from trivet.backends.environments.room import Uses, make_room, try_lock

log = logging.getLogger(__name__)

USUAL_FOLDER = Path("~/.cache/trivet/environments")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LOOK_S = 0.1
"""How often a lock that another process holds is tried."""
_NO_CAP = 1 << 62


class EnvironmentCache:
    """The folder. Any thread may use it."""

    def __init__(
        self, folder: Path, max_bytes: int = 1 << 40, max_total_bytes: int = _NO_CAP
    ) -> None:
        """`max_bytes`: that an archive may hold; `max_total_bytes`: of all environments, above
        which those go that no server uses."""
        self._given = folder
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._uses = Uses()

    @property
    def _folder(self) -> Path:
        """Raises LoadFailed for a user without a home."""
        try:
            return self._given.expanduser()
        except RuntimeError:
            raise LoadFailed(
                f"environments of models would be kept in '{self._given}', but the server's user "
                "has no home; let --environment-cache name a folder"
            ) from None

    def find(self, recipe: Recipe) -> Environment | None:
        """The environment where it has been made. Raises LoadFailed."""
        link = self._folder / recipe.key
        if not link.is_symlink():
            return None
        self._check_owner()
        try:
            # Nobody makes room by what is held; it may have gone before.
            self._uses.hold(self._folder, recipe.key)
            if not link.is_symlink():
                return None
            environment = recipe.made(link.resolve())
            self._uses.note(self._folder, recipe.key, link.resolve())
        except LoadFailed:
            # Somebody has removed some of it.
            return None
        except OSError as error:
            raise self._failed(recipe, error) from error
        return environment

    def make(self, recipe: Recipe, stop: threading.Event) -> Environment:
        """Makes it, unless it is there by the time that whoever else makes it has ended. Takes
        minutes. Raises LoadFailed; `stop` has it give up."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_owner()
            with self._locked(recipe, stop):
                return self.find(recipe) or self._made(recipe, Making(stop, self._max_bytes))
        except OSError as error:
            raise self._failed(recipe, error) from error

    def close(self) -> None:
        """No model of this server uses any more what it has found or made."""
        self._uses.close()

    def _made(self, recipe: Recipe, making: Making) -> Environment:
        for left_over in self._folder.glob(f"{recipe.key}.*/"):
            shutil.rmtree(left_over, ignore_errors=True)
        log.info("model '%s': its environment is being made", recipe.model)
        place = Path(tempfile.mkdtemp(prefix=f"{recipe.key}.", dir=self._folder.resolve()))
        try:
            recipe.make(place, making)
            environment = recipe.made(place)
            self._uses.hold(self._folder, recipe.key)
            self._publish(recipe.key, place)
            self._uses.note(self._folder, recipe.key, place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        log.info("model '%s': its environment is in '%s'", recipe.model, place)
        make_room(self._folder, self._max_total_bytes)
        return environment

    def _publish(self, key: str, place: Path) -> None:
        fresh = self._folder / f"{key}.link"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(place.name)
        fresh.replace(self._folder / key)

    @contextmanager
    def _locked(self, recipe: Recipe, stop: threading.Event) -> Iterator[None]:
        """The kernel lets go of it if this process dies."""
        path = self._folder / f"{recipe.key}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while not try_lock(fd):
                if stop.wait(_LOOK_S):
                    raise LoadFailed(f"model '{recipe.model}' was closed while it was loading")
            yield
        finally:
            os.close(fd)

    def _check_owner(self) -> None:
        """What lies there is run: nobody else may put it there."""
        about = self._folder.stat()
        if about.st_uid not in (os.geteuid(), 0) or about.st_mode & _OTHERS_WRITE:
            raise LoadFailed(
                f"environments of models are not kept in '{self._folder.name}', since others may "
                "write into it: let --environment-cache name a folder that is the server's alone "
                "(chmod 700)"
            )

    def _failed(self, recipe: Recipe, error: OSError) -> LoadFailed:
        where = "the folder of --environment-cache"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("no space for the environment of '%s' in '%s'", recipe.model, self._folder)
            why = f"there is no space left in {where}"
        else:
            log.error("the environment of '%s' cannot be made: %s", recipe.model, error)
            why = f"{error.strerror or type(error).__name__} ({where})"
        return LoadFailed(f"model '{recipe.model}': its environment cannot be made: {why}")

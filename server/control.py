"""Model control by name: what clients and models may ask, in explicit mode only.

What was begun is seen through, also when the client that asked for it leaves: a load that stopped
halfway would leave versions that nobody loads any more, and instances that nobody closes.
"""

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from trivet.backends.api import InvalidRequest, ServingError, Unavailable
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.logs.outage import Outage
from trivet.server.models.composition import steps_of
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.repository.config import config_of
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import (
    RepositoryUnreadableError,
    Snapshot,
    scan,
)
from trivet.server.repository.upload import NO_FILES, Upload
from trivet.server.settings import Settings

log = logging.getLogger(__name__)
ReadConfig = Callable[[ModelFolder, str | None], ModelConfig]
NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


class RepositoryControl:
    """Loads and unloads models of the repositories by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read: ReadConfig = partial(config_of, config_name=settings.model_config_name)
        self._with_ensemble: set[str] = set()
        """Models that nobody asked for but an ensemble that is made of them."""
        self._changes: set[asyncio.Task[None]] = set()
        self._uploads: dict[str, Upload] = {}
        """By model: the files of those that were sent."""
        self._outage = Outage()

    def attach(self, lifecycle: Lifecycle) -> None:
        """Called once, before anything is asked: the models that it loads may ask for control."""
        self._lifecycle = lifecycle

    async def load(
        self, name: str, config_json: str | None, files: Mapping[str, bytes] = NO_FILES
    ) -> None:
        """Loads what lies in the repository under that name now, or what was sent. Raises a
        ServingError."""
        check_model_name(name)
        self._require_explicit()
        try:
            if files:
                self._check_upload(name, config_json, files)
                await self._see_through(self._load_sent(name, config_json, files))
            else:
                await self._see_through(self._load(name, config_json))
        except ServingError as error:
            raise _told_of(name, error) from error

    async def unload(self, name: str, *, unload_dependents: bool) -> None:
        """Returns when the model accepts no more requests. Raises a ServingError."""
        check_model_name(name)
        self._require_explicit()
        await self._see_through(self._unload(name, unload_dependents=unload_dependents))

    def close(self) -> None:
        """Breaks off what is still under way: the server ends."""
        for change in self._changes:
            change.cancel()
        for upload in self._uploads.values():
            upload.close()

    async def _see_through(self, change: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._seen_through)
        await asyncio.wait((task,))
        task.result()

    def _seen_through(self, task: "asyncio.Task[None]") -> None:
        self._changes.discard(task)
        if task.cancelled():
            return
        # If its caller has left, nobody else asks how it ended. What is expected, the lifecycle has
        # logged.
        error = task.exception()
        if error is not None and not isinstance(error, ServingError):
            log.error("loading or unloading a model failed unexpectedly", exc_info=error)

    async def _load(self, name: str, config_json: str | None) -> None:
        snapshot = await self._scan(name)
        folder = snapshot.models.get(name)
        if folder is None or folder.is_stranger:
            problem = folder.advice if folder else snapshot.problems.get(name)
            if problem and not folder:
                self._lifecycle.note_problem(name, problem)
            raise InvalidRequest(not_in_repository(name, problem or ""))
        self._with_ensemble.discard(name)
        await self._load_steps(folder, config_json, snapshot)
        await self._lifecycle.load(folder, config_json)
        await self._keep(name, None)

    # -- what clients send ---------------------------------------------------------------------

    def _check_upload(self, name: str, config_json: str | None, files: Mapping[str, bytes]) -> None:
        first = f"load parameter 'file:{next(iter(files))[:64]}'"
        if not self._settings.allow_model_upload:
            raise InvalidRequest(
                f"failed to load '{name}': {first} is not accepted: this server takes no model "
                "files over the network (--allow-model-upload); put them into the repository"
            )
        if config_json is None:
            raise InvalidRequest(
                f"failed to load '{name}': {first} needs the parameter 'config' beside it: the "
                "config of a model that is sent is not the repository's"
            )

    async def _load_sent(
        self, name: str, config_json: str | None, files: Mapping[str, bytes]
    ) -> None:
        """A failed load leaves what served, with the files that it was loaded from."""
        largest_bytes = self._settings.max_model_upload_size
        upload = await asyncio.to_thread(Upload.store, name, files, largest_bytes)
        try:
            self._with_ensemble.discard(name)
            await self._load_steps(upload.folder, config_json, await self._scan(name))
            await self._lifecycle.load(upload.folder, config_json)
        except BaseException:
            await asyncio.to_thread(upload.close)
            raise
        await self._keep(name, upload)

    async def _keep(self, name: str, upload: Upload | None) -> None:
        """What a model serves from now, as far as it was sent; what it served from before goes."""
        previous = self._uploads.pop(name, None)
        if upload is not None:
            self._uploads[name] = upload
        if previous is not None:
            await asyncio.to_thread(previous.close)

    # -- what lies in repositories -------------------------------------------------------------

    async def _scan(self, name: str) -> Snapshot:
        """What lies in the repositories. Raises Unavailable, which does not say where they are."""
        try:
            return await asyncio.to_thread(scan, self._settings.model_repository)
        except RepositoryUnreadableError as error:
            if self._outage.goes_on():
                log.error("%s; what serves goes on serving", error)  # noqa: TRY400 - no traceback
            raise Unavailable(
                f"failed to load '{name}': the model repository cannot be read now; the server "
                "log has the details"
            ) from None

    async def _load_steps(
        self, folder: ModelFolder, config_json: str | None, snapshot: Snapshot
    ) -> None:
        """Loads what an ensemble is made of and does not serve; it tells itself what failed."""
        serving = self._lifecycle.serving()
        for name in await asyncio.to_thread(_all_steps, self._read, folder, config_json, snapshot):
            if name in snapshot.models and name not in serving:
                self._with_ensemble.add(name)
                with suppress(ServingError):
                    await self._lifecycle.load(snapshot.models[name])

    async def _unload(self, name: str, *, unload_dependents: bool) -> None:
        steps = self._lifecycle.composition.steps(name)
        await self._lifecycle.unload(name)
        await self._keep(name, None)
        if not unload_dependents:
            return
        for step in sorted(steps & self._with_ensemble):
            if not self._lifecycle.serving() & set(self._lifecycle.composition.users(step)):
                self._with_ensemble.discard(step)
                await self._unload(step, unload_dependents=True)

    async def closure(self, names: Iterable[str], snapshot: Snapshot) -> set[str]:
        """Models and, for ensembles, all that they are made of; what is added is theirs."""
        chosen = set(names)
        for name in sorted(chosen & snapshot.models.keys()):
            folder = snapshot.models[name]
            steps = await asyncio.to_thread(_all_steps, self._read, folder, None, snapshot)
            added = set(steps) & snapshot.models.keys() - chosen
            self._with_ensemble |= added
            chosen |= added
        return chosen

    def _require_explicit(self) -> None:
        if self._settings.model_control_mode != "explicit":
            raise Unavailable(NOT_EXPLICIT)


def _told_of(name: str, error: ServingError) -> ServingError:
    """The error in the words that Triton's clients look for, whatever it is that failed."""
    if error.message.startswith("failed to load"):
        return error
    told = copy.copy(error)
    told.message = f"failed to load '{name[:255]}': {error.message}"
    told.args = (told.message,)
    return told


def _all_steps(
    read: ReadConfig, folder: ModelFolder, config_json: str | None, snapshot: Snapshot
) -> list[str]:
    """All that an ensemble is made of, the innermost first. What cannot be read has no steps."""
    found: list[str] = []
    _add_steps(read, folder, config_json, snapshot, found, {folder.name})
    return found


def _add_steps(
    read: ReadConfig,
    folder: ModelFolder,
    config_json: str | None,
    snapshot: Snapshot,
    found: list[str],
    seen: set[str],
) -> None:
    with suppress(ServingError):
        for name in sorted(steps_of(read(folder, config_json)) - seen):
            seen.add(name)
            if name in snapshot.models:
                _add_steps(read, snapshot.models[name], None, snapshot, found, seen)
            found.append(name)


def not_in_repository(name: str, reason: str) -> str:
    """In the words that Triton's clients look for."""
    why = f": {reason}" if reason else ""
    return f"failed to load '{name}', failed to poll from model repository{why}"


def check_model_name(name: str) -> None:
    """Raises InvalidRequest for a name that cannot be a model folder's."""
    if not name.strip():
        raise InvalidRequest("Model name cannot be empty. Please enter a valid name to deploy.")
    parts = Path(name.strip()).parts
    if "/" in name or "\\" in name or "\0" in name or ".." in parts:
        raise InvalidRequest("model name must not contain path traversal characters")

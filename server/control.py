"""Model control by name: what clients and models may ask, in explicit mode only.

What was begun is seen through, also when the client that asked for it leaves: a load that stopped
halfway would leave versions that nobody loads any more, and instances that nobody closes.
"""

import asyncio
import copy
import logging
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from trivet.backends.api import InvalidRequest, LoadFailed, ServingError, Unavailable
from trivet.backends.api.naming import name_in, namespace_in
from trivet.server.logs.outage import Outage
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.models.strangers import Strangers
from trivet.server.models.texts import did_you_mean
from trivet.server.remote.repositories import Repositories
from trivet.server.repository.config import config_of
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.names import Names, ambiguous
from trivet.server.repository.scan import RepositoryUnreadableError, Snapshot
from trivet.server.repository.steps import ReadConfig, Steps
from trivet.server.repository.upload import NO_FILES, Upload
from trivet.server.settings import Settings

log = logging.getLogger(__name__)
NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


class RepositoryControl:
    """Loads and unloads models of the repositories by name."""

    def __init__(
        self, settings: Settings, repositories: Repositories, strangers: Strangers
    ) -> None:
        self._settings = settings
        self._repositories = repositories
        self._strangers = strangers
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
        check_model_name(self._name_in(name))
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
        check_model_name(self._name_in(name))
        self._require_explicit()
        await self._see_through(self._unload(name, unload_dependents=unload_dependents))

    def _name_in(self, name: str) -> str:
        """The model's name in what a client gives, which may have a namespace before it."""
        return name_in(name) if self._settings.model_namespacing else name

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
        keys = [key for key in (*snapshot.models, *snapshot.problems) if _is_meant(key, name)]
        if not keys:
            # With keys, a caller may not know of all models.
            elsewhere = self._repositories.unfetched().values()
            names = (*map(name_in, snapshot.models), *elsewhere)
            known = () if self._settings.auth_keys_file else names
            raise InvalidRequest(not_in_repository(name, "", known))
        failures: list[ServingError] = []
        for key in keys:
            try:
                await self._load_one(key, config_json, snapshot)
            except ServingError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise LoadFailed("; ".join(failure.message for failure in failures))

    async def _load_one(self, key: str, config_json: str | None, snapshot: Snapshot) -> None:
        folder = snapshot.models.get(key)
        if folder is None:
            self._lifecycle.note_problem(key, snapshot.problems[key])
            raise InvalidRequest(not_in_repository(key, snapshot.problems[key]))
        if folder.is_stranger:
            raise InvalidRequest(not_in_repository(key, folder.advice))
        self._with_ensemble.discard(key)
        snapshot = await self._with_steps(folder, config_json, snapshot)
        await self._load_steps(folder, config_json, snapshot)
        await self._lifecycle.load(folder, config_json)
        await self._keep(key, None)

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
        snapshot = await self._scan(name)
        upload = await asyncio.to_thread(
            Upload.store,
            name_in(name),
            files,
            largest_bytes,
            namespace=self._namespace_of(name, snapshot),
        )
        key = upload.folder.key
        try:
            self._with_ensemble.discard(key)
            snapshot = await self._with_steps(upload.folder, config_json, snapshot)
            await self._load_steps(upload.folder, config_json, snapshot)
            await self._lifecycle.load(upload.folder, config_json)
        except BaseException:
            await asyncio.to_thread(upload.close)
            raise
        await self._keep(key, upload)

    def _namespace_of(self, name: str, snapshot: Snapshot) -> str:
        """Of a model that is sent: it stands for the one of the repository, or lies in the first
        one. Raises InvalidRequest."""
        if not self._settings.model_namespacing:
            return ""
        repositories = self._repositories.names
        namespace = namespace_in(name)
        if namespace and namespace not in repositories:
            raise InvalidRequest(
                f"'{namespace[:255]}' is no model repository of this server; they are "
                f"{', '.join(repositories)}"
            )
        bearers = Names(snapshot.keys()).bearers(name)
        if len(bearers) > 1:
            raise ambiguous(name, bearers)
        return namespace or (namespace_in(bearers[0]) if bearers else repositories[0])

    async def _keep(self, key: str, upload: Upload | None) -> None:
        """What a model serves from now, as far as it was sent; what it served from before goes."""
        previous = self._uploads.pop(key, None)
        if upload is not None:
            self._uploads[key] = upload
        if previous is not None:
            await asyncio.to_thread(previous.close)

    # -- what lies in repositories -------------------------------------------------------------

    async def _scan(self, name: str) -> Snapshot:
        """What lies in the repositories. Raises Unavailable."""
        with self._readable(name):
            snapshot = await asyncio.to_thread(self._repositories.scan)
        if self._lies_here(name, snapshot):  # and waits for nobody elsewhere
            return snapshot
        snapshot = await self._fetched(name, {self._name_in(name)})
        if not any(_is_meant(key, name) for key in (*snapshot.models, *snapshot.problems)):
            self._repositories.give_up({self._name_in(name)})
        return snapshot

    async def _fetched(self, name: str, wanted: Collection[str]) -> Snapshot:
        """What lies in the repositories once these have come from elsewhere, for a load of `name`.
        Raises Unavailable."""
        with self._readable(name):
            await self._repositories.refresh(wanted)
            snapshot = await asyncio.to_thread(self._repositories.scan)
        self._strangers.keep_only(snapshot.strangers())
        return snapshot

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        """Raises Unavailable, which does not say where repositories are."""
        try:
            yield
        except RepositoryUnreadableError as error:
            if self._outage.goes_on():
                log.error("%s; what serves goes on serving", error)  # noqa: TRY400 - no traceback
            raise Unavailable(
                f"failed to load '{name}': the model repository cannot be read now; the server "
                "log has the details"
            ) from None

    async def completed(self, names: Iterable[str], snapshot: Snapshot) -> Snapshot:
        """With what these models are made of, where that lies elsewhere and has not come yet.
        Raises Unavailable."""
        for name in names:
            for key in [key for key in snapshot.models if _is_meant(key, name)]:
                snapshot = await self._with_steps(snapshot.models[key], None, snapshot)
        return snapshot

    async def _with_steps(
        self, folder: ModelFolder, config_json: str | None, snapshot: Snapshot
    ) -> Snapshot:
        while elsewhere := self._repositories.unfetched():
            steps = await asyncio.to_thread(Steps(self._read, snapshot).of, folder, config_json)
            missing = {name_in(key) for key in steps.keys if key not in snapshot.models}
            if not missing.intersection(elsewhere.values()):
                break
            snapshot = await self._fetched(folder.key, missing.intersection(elsewhere.values()))
        return snapshot

    def _lies_here(self, name: str, snapshot: Snapshot) -> bool:
        """Whether a folder of this machine has it, and none that only mirrors another one."""
        found = [snapshot.models[key].path for key in snapshot.models if _is_meant(key, name)]
        if any(_is_meant(key, name) for key in self._repositories.unfetched()):
            return False
        return bool(found) and not any(map(self._repositories.is_elsewhere, found))

    async def _load_steps(
        self, folder: ModelFolder, config_json: str | None, snapshot: Snapshot
    ) -> None:
        """Loads what an ensemble is made of and does not serve; it tells itself what failed. Raises
        InvalidRequest for a step that several models may be, none of which serves."""
        serving = self._lifecycle.serving()
        steps = await asyncio.to_thread(Steps(self._read, snapshot).of, folder, config_json)
        for name, bearers in steps.ambiguous.items():
            if serving.isdisjoint(bearers):
                raise ambiguous(name, bearers)
        for key in steps.keys:
            if key in snapshot.models and key not in serving:
                self._with_ensemble.add(key)
                with suppress(ServingError):
                    await self._lifecycle.load(snapshot.models[key])

    async def _unload(self, name: str, *, unload_dependents: bool) -> None:
        for key in [key for key in self._lifecycle.known if _is_meant(key, name)]:
            await self._unload_one(key, unload_dependents=unload_dependents)

    async def _unload_one(self, key: str, *, unload_dependents: bool) -> None:
        steps = self._lifecycle.composition.steps(key)
        await self._lifecycle.unload(key)
        await self._keep(key, None)
        self._repositories.give_up({name_in(key)} - set(map(name_in, self._lifecycle.serving())))
        if not unload_dependents:
            return
        for step in sorted(steps & self._with_ensemble):
            if not self._lifecycle.serving() & set(self._lifecycle.composition.users(step)):
                self._with_ensemble.discard(step)
                await self._unload_one(step, unload_dependents=True)

    async def closure(self, names: Iterable[str], snapshot: Snapshot) -> set[str]:
        """The keys of the models with these names and, for ensembles, of all that they are made of;
        what is added is theirs. A name of none stays as it is."""
        chosen: set[str] = set()
        for name in names:
            chosen |= {
                key for key in (*snapshot.models, *snapshot.problems) if _is_meant(key, name)
            } or {name}
        for key in sorted(chosen & snapshot.models.keys()):
            folder = snapshot.models[key]
            steps = await asyncio.to_thread(Steps(self._read, snapshot).of, folder, None)
            added = set(steps.keys) & snapshot.models.keys() - chosen
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


def _is_meant(key: str, name: str) -> bool:
    """Whether a client means the model with this key: all of a name, or one of them."""
    return name in (key, name_in(key))


def not_in_repository(name: str, reason: str, known: Iterable[str] = ()) -> str:
    """In the words that Triton's clients look for. `known`: names that may have been meant."""
    why = f": {reason}" if reason else did_you_mean(name, known)
    return f"failed to load '{name}', failed to poll from model repository{why}"


def check_model_name(name: str) -> None:
    """Raises InvalidRequest for a name that cannot be a model folder's."""
    if not name.strip():
        raise InvalidRequest("Model name cannot be empty. Please enter a valid name to deploy.")
    parts = Path(name.strip()).parts
    if "/" in name or "\\" in name or "\0" in name or ".." in parts:
        raise InvalidRequest("model name must not contain path traversal characters")

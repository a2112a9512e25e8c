"""The adapters over one base: what lies in their folder, and which of them serve."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trivet.backends.api import (
    InvalidRequest,
    LoadFailed,
    NotFound,
    ServingError,
    Unavailable,
    UnreadableFiles,
)
from trivet.backends.llm.messages import AdapterRead
from trivet.backends.llm.serving.adapted import AdaptedExecutor
from trivet.backends.llm.serving.adapter_folders import (
    ReadFolder,
    Stamps,
    check_name,
    inside,
    look,
    read_folder,
)

log = logging.getLogger(__name__)


class EngineSide(Protocol):
    """Whom the shelf tells."""

    def load_adapter(self, key: str, name: str, folder: str) -> None:
        """Answered by AdapterRead. Raises InstanceDied, which is Unavailable, while there is no
        engine."""

    def unload_adapter(self, key: str) -> None:
        """Nobody will ask for it any more."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An adapter's folder at one moment."""

    folder: str
    stamps: Stamps


Make = Callable[[str, AdapterRead, ReadFolder], AdaptedExecutor]


class AdapterShelf:
    """Owned by the event loop. One change at a time."""

    def __init__(self, base: str, root: Path | None, engine: EngineSide, make: Make) -> None:
        """`root`: the folder of adapters; None: the base has none."""
        self._base, self._root = base, root
        self._engine = engine
        self._make = make
        self.ready: dict[str, AdaptedExecutor] = {}
        self.troubles: dict[str, str] = {}
        self._known: dict[str, _Found] = {}
        """What was tried last, by name."""
        self._renamed: dict[str, str] = {}
        """Folders of those that serve by another name than their folder's."""
        self._dismissed: dict[str, Stamps] = {}
        """Those that somebody has unloaded, until their files change."""
        self._pending: dict[str, asyncio.Future[AdapterRead]] = {}
        self._num_loads = 0
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Serves what lies in the folder now."""
        if self._root is None:
            return
        async with self._lock:
            try:
                found = await asyncio.to_thread(self._look)
            except LoadFailed as error:
                log.error("adapters of '%s': %s", self._base, error.message)  # noqa: TRY400  # it says all
                return
            wanted = {name: _Found(name, stamps) for name, stamps in found.items()}
            wanted |= {
                name: _Found(folder, found[folder])
                for name, folder in self._renamed.items()
                if folder in found
            }
            for name in (self._known.keys() | self.troubles.keys()) - wanted.keys():
                self._forget(name)
            for name in self._dismissed.keys() - wanted.keys():
                del self._dismissed[name]
            for name, each in sorted(wanted.items()):
                is_dismissed = self._dismissed.get(name) == each.stamps
                if each != self._known.get(name) and not is_dismissed:
                    await self._try(name, each)

    async def load(self, name: str, folder: str, *, in_place: bool) -> None:
        """Serves the adapter of a folder. Raises a ServingError."""
        check_name("lora_name", name)
        check_name("lora_path", folder)
        async with self._lock:
            if name in self.ready and not in_place:
                raise InvalidRequest(
                    f"lora_name: The lora adapter '{name}' has already been loaded. If you want to "
                    "load the adapter in place, set 'load_inplace' to True."
                )
            stamps = await asyncio.to_thread(self._look)
            if folder not in stamps:
                raise NotFound(
                    f"lora_path: model '{self._base}' has no adapter '{folder}': it would be the "
                    f"folder 'adapters/{folder}' beside the model's versions"
                )
            self._renamed.pop(name, None)
            if name != folder:
                self._renamed[name] = folder
            error = await self._try(name, _Found(folder, stamps[folder]))
            if error is not None:
                kind = Unavailable if isinstance(error, Unavailable) else LoadFailed
                raise kind(f"lora_path: {self.troubles[name]}")

    async def unload(self, name: str) -> None:
        """Serves it no more. Raises NotFound."""
        async with self._lock:
            if name not in self._known:
                raise NotFound(f"lora_name: The lora adapter '{name[:128]}' cannot be found.")
            self._renamed.pop(name, None)
            stamps = self._known[name].stamps
            self._forget(name)
            self._dismissed[name] = stamps
            log.info("adapter '%s' of '%s' is unloaded", name, self._base)

    def note(self, read: AdapterRead) -> None:
        """What came of a load."""
        pending = self._pending.pop(read.key, None)
        if pending is not None and not pending.done():
            pending.set_result(read)
        elif read.error:  # of an engine that came back
            for name, executor in list(self.ready.items()):
                if executor.key == read.key:
                    self._fail(name, read.error)

    def restore(self) -> None:
        """A new engine is told of all, and what failed with the old one is tried again."""
        for name, executor in self.ready.items():
            folder = self._known[name].folder
            self._engine.load_adapter(executor.key, name, self._path(folder))
        task = asyncio.ensure_future(self.follow())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget_pending(self, error: ServingError) -> None:
        """The engine that was to read them is gone."""
        for key in list(self._pending):
            self.note(AdapterRead(key, error.message, is_unreadable=True))

    def close(self) -> None:
        """Nothing is loaded any more; what is being loaded fails."""
        for task in self._tasks:
            task.cancel()
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(Unavailable("the model is being unloaded"))

    def _look(self) -> Mapping[str, Stamps]:
        """Raises LoadFailed."""
        try:
            return {} if self._root is None else look(self._root)
        except OSError as error:
            raise LoadFailed(f"the folder of adapters cannot be read: {error.strerror}") from error

    # -- one of them ---------------------------------------------------------------------------

    async def _try(self, name: str, found: _Found) -> ServingError | None:
        """Why it does not serve, if it does not."""
        self._dismissed.pop(name, None)
        before = self._known.get(name)
        self._known[name] = found
        self._num_loads += 1
        key = f"{name}#{self._num_loads}"
        try:
            files = await asyncio.to_thread(read_folder, inside(self._root, found.folder))
            read = await self._read(key, name, found.folder)
            files.check(read.vocabulary_size)
        except ServingError as error:
            self._engine.unload_adapter(key)
            self._fail(name, error.message)
            if isinstance(error, UnreadableFiles | Unavailable):
                del self._known[name]  # tried again at the next look
            return error
        except BaseException:  # who asked for it has left, perhaps: what served before serves on
            self._engine.unload_adapter(key)
            self._known.pop(name)
            if before is not None:
                self._known[name] = before
            raise
        replaced = self.ready.get(name)
        self.ready[name] = self._make(name, read, files)
        self.troubles.pop(name, None)
        if replaced is not None:
            self._engine.unload_adapter(replaced.key)
        log.info("adapter '%s' of '%s' is ready", name, self._base)
        return None

    async def _read(self, key: str, name: str, folder: str) -> AdapterRead:
        """Raises LoadFailed, and Unavailable while there is no engine."""
        pending = asyncio.get_running_loop().create_future()
        self._pending[key] = pending
        try:
            self._engine.load_adapter(key, name, self._path(folder))
            read: AdapterRead = await pending
        finally:
            self._pending.pop(key, None)
        if read.error:
            raise (UnreadableFiles if read.is_unreadable else LoadFailed)(read.error)
        return read

    def _path(self, folder: str) -> str:
        return str(inside(self._root, folder))

    def _fail(self, name: str, reason: str) -> None:
        """Its earlier files are not there to go on with."""
        self._retire(name)
        self.troubles[name] = f"adapter '{name}' of model '{self._base}': {reason}"
        log.error("adapter '%s' of '%s' did not load: %s", name, self._base, reason)

    def _forget(self, name: str) -> None:
        self._retire(name)
        self._known.pop(name, None)
        self.troubles.pop(name, None)

    def _retire(self, name: str) -> None:
        executor = self.ready.pop(name, None)
        if executor is not None:
            self._engine.unload_adapter(executor.key)

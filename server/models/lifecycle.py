"""The life of model versions: load, publish, retire. Owned by the event loop.

    LOADING ──► READY ──► UNLOADING ──► UNAVAILABLE (reason "unloaded")
       └──────────────────────────────► UNAVAILABLE (reason: what went wrong)

A version is published only when all its instances are open and warm; those that serve are retired
only after every version that should replace them is ready, so a failed load leaves the last good
one serving; a retired version answers the requests it has taken.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from trivet.backends.api import Adapting, LoadFailed, ServingError, UnreadableFiles
from trivet.server.models.assemble import Assembler
from trivet.server.models.composition import Composition
from trivet.server.models.counted import Counted
from trivet.server.models.ending import end
from trivet.server.models.known import Known, State, Status, Wanted
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Loader, Opened
from trivet.server.models.model import Model
from trivet.server.models.opening import Opener
from trivet.server.models.registry import Registry
from trivet.server.models.sleeping.budget import NO_TERMS, MemoryTerms
from trivet.server.models.sleeping.residency import Residency
from trivet.server.models.texts import held_back
from trivet.server.repository.layout import ModelFolder
from trivet.server.scheduling.sequences.executor import SequenceExecutor
from trivet.server.scheduling.statistics import ModelStatistics

log = logging.getLogger(__name__)
Listener = Callable[[str, int, Status], None]


class Lifecycle:
    """Carries model folders through the state table above, one operation at a time per model."""

    def __init__(
        self,
        registry: Registry,
        loader: Loader,
        assembler: Assembler,
        *,
        load_threads: int = 4,
        listener: Listener,
        on_end: Callable[[], None] = lambda: None,
        load_retries: int = 0,
        has_summaries: bool = False,
        terms: MemoryTerms = NO_TERMS,
        is_held: Callable[[str], bool] = lambda _: False,
        direct: Callable[[LoadPlan], LoadPlan] = lambda plan: plan,
    ) -> None:
        """`on_end`: called when a version is gone, maybe long after `listener`; `load_retries`: how
        often a load that failed is tried again at once; `has_summaries`: whether statistics keep
        quantiles; `terms`, `is_held`: when models sleep, and whether one must not, now; `direct`:
        which versions serve after all, and who gets which."""
        self._direct = direct
        self._registry = registry
        self._opener = Opener(loader, threads=load_threads, retries=load_retries)
        self._assembler = assembler
        self.residency = Residency(
            self._opener, assembler, terms, is_held=is_held, on_change=on_end
        )
        self._listener = listener
        self._on_end = on_end
        self._known: dict[str, Known] = {}
        """By the models' keys."""
        registry.trouble_of = lambda key: self._known.get(key, Known()).trouble
        self._counted = Counted(has_summaries=has_summaries)
        self._retiring: set[asyncio.Task[None]] = set()
        self.composition = Composition(registry.names)

    # -- what is there -------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, Known]:
        """Every model ever seen in a repository, with its versions' states."""
        return self._known

    def serving(self) -> set[str]:
        """The models of which a version serves."""
        return set(self._registry.models)

    def unreadable(self) -> list[str]:
        """The models whose files the disk did not give out when they were last to be loaded. Not
        while they are: of one version that is known before another has been read."""
        return [
            key
            for key, known in self._known.items()
            if known.is_unreadable and not known.lock.locked()
        ]

    def statistics(self) -> list[ModelStatistics]:
        """Of every version that was ever ready; they go on over reloads."""
        return self._counted.all()

    # -- load ----------------------------------------------------------------------------------

    async def load(self, folder: ModelFolder, override_json: str | None = None) -> None:
        """Makes the served versions of a model those its folder asks for. Raises LoadFailed."""
        self.announce([folder.key])
        is_loaded = False
        try:
            await self._load_alone(folder, override_json)
            is_loaded = True
        finally:
            self.composition.ended(folder.key)
            # What has not loaded concerns those whose steps' names mean it nevertheless.
            users = self.composition.users(folder.key) if is_loaded else ()
            self._read_anew({*users, *self.composition.moved()})

    def announce(self, keys: Iterable[str]) -> None:
        """Loads of these models are about to begin: ensembles wait for those of their steps, and
        the models' names mean them from now on."""
        for key in keys:
            self._registry.take(key)
            self.composition.announce(key)

    async def _load_alone(self, folder: ModelFolder, override_json: str | None) -> None:
        async with self._locked(folder.key) as known:
            known.is_gone = False
            # A removal that was waited for has given it up.
            self._registry.take(folder.key)
            if folder.key not in self._registry.models:
                self._registry.expect(folder.key, is_coming=True)
            try:
                await self._load(folder, override_json, known)
            finally:
                self._registry.expect(folder.key, is_coming=False)

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[Known]:
        """What is known of a model, with its lock held: a removal that was waited for may have
        forgotten what was known before."""
        while True:
            known = self._known.setdefault(key, Known())
            async with known.lock:
                if self._known.get(key) is known:
                    yield known
                    return

    async def _load(self, folder: ModelFolder, override_json: str | None, known: Known) -> None:
        known.is_unreadable = False
        self.composition.followed(folder.key)
        try:
            asked = await self._opener.plan(folder, override_json)
            plan = self._direct(asked)
        except ServingError as error:
            self._note_failure(folder.key, known, error)
            raise
        known.failure = ""
        others = held_back(plan.given, folder.versions, plan.versions)
        self._registry.hold_back(folder.key, {**others, **plan.withheld})
        self.composition.made_of(folder.key, plan.steps)
        known.wanted = Wanted(folder, override_json) if plan.steps else None
        if plan.steps:
            await self._wait_for_steps(folder.key, known)
        if not self._registry.is_shared_out(folder.key):
            # So that a version which is to get a part does not get all while others still load.
            self._registry.share_out(folder.key, plan.traffic)
        self._registry.withhold(folder.key, plan.traffic.candidates)
        served = self._registry.models.get(folder.key, {})
        stale = [each for each in plan.versions if not plan.is_current(each, served.get(each))]
        for version in set(plan.versions) - set(stale):
            # A reload that failed before may have left its reason here.
            self._set(folder.key, version, known, Status(State.READY))
        results = await asyncio.gather(
            *(self._load_version(plan, version, known) for version in stale)
        )
        ends = zip(stale, results, strict=True)
        failures = [each for version, each in ends if each and version not in plan.on_trial]
        if failures:
            raise LoadFailed(f"load failed for model '{folder.key}': {'; '.join(failures)}")
        known.outage.ends()
        self._registry.settle_traffic(folder.key, self._direct(asked).traffic)
        for version in plan.withheld.keys() - self._registry.models[folder.key].keys():
            self._set(folder.key, version, known, Status(State.UNAVAILABLE, plan.withheld[version]))
        for version in set(self._registry.models[folder.key]) - set(plan.versions):
            self._retire(folder.key, version, known, plan.withheld.get(version, "unloaded"))
        for version in set(known.versions) - set(folder.versions):
            if known.versions[version].state is State.UNAVAILABLE:
                del known.versions[version]
        for model in self._registry.models[folder.key].values():
            if isinstance(model.executor, Adapting):
                await model.executor.follow_adapters()

    async def _wait_for_steps(self, key: str, known: Known) -> None:
        try:
            await self.composition.wait_for_steps(key)
        except ServingError as error:
            self._note_failure(key, known, error)
            raise

    async def _load_version(self, plan: LoadPlan, version: int, known: Known) -> str:
        """Loads and publishes one version; returns why it failed, or an empty text."""
        key = plan.folder.key
        if version not in self._registry.models.get(key, {}):
            self._set(key, version, known, Status(State.LOADING))
        started = time.monotonic()

        def publish(opened: Opened) -> Model:
            statistics = self._counted.of(plan, version)
            statistics.load_duration_s = time.monotonic() - started
            statistics.tags = dict(opened.config.metric_tags)
            model = self._assembler.assemble(plan, version, opened, statistics)
            replaced = self._registry.publish(model)
            self._set(key, version, known, Status(State.READY))
            log.info("model '%s' version %d is ready", key, version)
            if replaced is not None:
                self._spawn(self._end(replaced))
            return model

        try:
            await self.residency.load(plan, version, publish)
        except ServingError as error:
            self._fail_version(key, version, known, error)
            return f"version {version} is at UNAVAILABLE state: {error.message}"
        return ""

    async def _end(self, model: Model) -> None:
        await end(model, self._registry.routers, self._on_end)
        self.residency.ended(model)

    def _is_news(self, known: Known, error: ServingError) -> bool:
        """Notes a fault of the disk, which is met at each look and told once a minute."""
        if not isinstance(error, UnreadableFiles):
            return True
        known.is_unreadable = True
        return known.outage.goes_on()

    def _fail_version(self, key: str, version: int, known: Known, error: ServingError) -> None:
        reason = error.message
        if self._is_news(known, error):
            log.error("model '%s' version %d did not load: %s", key, version, reason)
        is_faulty, state = not isinstance(error, UnreadableFiles), State.UNAVAILABLE
        if version in self._registry.models.get(key, {}):
            state = State.READY
            reason = f"reload failed, the previous files still serve: {reason}"
        self._set(key, version, known, Status(state, reason, is_faulty))

    def _note_failure(self, key: str, known: Known, error: ServingError) -> None:
        """A failure of the model as a whole: shown at each version that still serves."""
        reason = error.message
        if self._is_news(known, error):
            log.error("model '%s' did not load: %s", key, reason)
        served = self._registry.models.get(key, {})
        known.failure = "" if served else reason
        for version in served:
            text = f"reload failed, the previous files still serve: {reason}"
            self._set(key, version, known, Status(State.READY, text))

    def know(self, key: str) -> None:
        """A model that is in a repository but was not asked for."""
        self._known.setdefault(key, Known())
        self._registry.expect(key, is_coming=False)

    def note_problem(self, key: str, reason: str) -> None:
        """A model whose folder cannot be used at all, such as one that is in two repositories."""
        self._registry.take(key)
        self._note_failure(key, self._known.setdefault(key, Known()), LoadFailed(reason))
        if key not in self._registry.models:
            self._registry.expect(key, is_coming=False)

    # -- unload --------------------------------------------------------------------------------

    async def unload(self, key: str) -> None:
        """Takes a model out of service; returns when it accepts no more, drains afterwards.

        What failed to load is not wanted any more either, and its failure is nobody's concern.
        """
        if key in self._known:
            async with self._locked(key) as known:
                known.wanted = None
                known.is_unreadable = False
                known.failure = ""
                for version, status in known.versions.items():
                    if status.state is State.UNAVAILABLE:
                        self._set(key, version, known, Status(State.UNAVAILABLE, "unloaded"))
                self._retire_all(key, known)
                self._registry.give_up(key)
            self._close_users(key)

    async def remove(self, key: str) -> None:
        """Unloads a model whose folder is gone."""
        if key not in self._known:
            return
        async with self._locked(key) as known:
            self._retire_all(key, known)
            self._registry.give_up(key)
            self._registry.forget(key)
            known.is_gone = True
            known.wanted = None
            self.composition.made_of(key, frozenset())
            self._forget_if_gone(key, known)
        self._close_users(key)

    def _retire_all(self, key: str, known: Known) -> None:
        for version in list(self._registry.models.get(key, {})):
            self._retire(key, version, known)

    def _forget_if_gone(self, key: str, known: Known) -> None:
        states = {status.state for status in known.versions.values()}
        if known.is_gone and State.UNLOADING not in states and self._known.get(key) is known:
            del self._known[key]

    def _retire(self, key: str, version: int, known: Known, reason: str = "unloaded") -> None:
        model = self._registry.withdraw(key, version)
        if model is None:
            return
        leaving = Status(State.UNLOADING)
        self._set(key, version, known, leaving)
        self._spawn(self._leave(model, known, leaving, reason))

    # -- ensembles -----------------------------------------------------------------------------

    def _read_anew(self, users: Iterable[str]) -> None:
        """A step of these ensembles has changed: they load again, or come back."""
        for user in sorted(users):
            known = self._known.get(user)
            if known is not None and known.wanted and not self.composition.is_loading(user):
                self._spawn(self._revalidate(user, known.wanted))

    async def _revalidate(self, key: str, wanted: Wanted) -> None:
        try:
            await self.load(wanted.folder, wanted.override_json)
        except ServingError as error:
            async with self._locked(key) as known:
                for version in list(self._registry.models.get(key, {})):
                    self._retire(key, version, known, error.message)
            self._close_users(key)

    def _close_users(self, key: str) -> None:
        """A step serves no more: neither do the ensembles of it, until it is back. Those whose step
        is another model now load again."""
        moved = self.composition.moved()
        if key in self._registry.models:
            self._read_anew({*self.composition.users(key), *moved})
            return
        followed = {user for user in moved if self.composition.steps_now(user) <= self.serving()}
        self._read_anew(followed)
        for user in self.composition.users(key):
            known = self._known.get(user)
            if known is None or user in followed or self.composition.is_loading(user):
                continue
            versions = list(self._registry.models.get(user, {}))
            for version in versions:
                self._retire(user, version, known, f"its step model '{key}' is unloaded")
            if versions:
                self._close_users(user)

    async def _leave(self, model: Model, known: Known, leaving: Status, reason: str) -> None:
        """Ends a version that was retired. It may be loaded again meanwhile: then `leaving` is not
        what is said of it any more, and its end is nobody's news."""
        await self._end(model)
        if known.versions.get(model.version) is leaving:
            self._set(model.key, model.version, known, Status(State.UNAVAILABLE, reason))
        if model.version not in self._registry.models.get(model.key, {}):
            self._counted.freed(model.key, model.version)
        self._forget_if_gone(model.key, known)

    # -- end of the server ---------------------------------------------------------------------

    def stop_making(self) -> None:
        """Gives up environments that are being made for models: they may take minutes."""
        self._opener.stop_making()

    async def finish_sequences(self, timeout_s: float) -> None:
        """Begins no new sequences; returns when all have ended, after `timeout_s` at the latest."""
        models = [m for versions in self._registry.models.values() for m in versions.values()]
        executors = [m.executor for m in models if isinstance(m.executor, SequenceExecutor)]
        endings = asyncio.gather(*(executor.finish_sequences() for executor in executors))
        with suppress(TimeoutError):
            await asyncio.wait_for(endings, timeout_s)

    async def stop(self, timeout_s: float) -> None:
        """Drains every model for up to `timeout_s`, then fails what is left and frees all."""
        models = [m for versions in self._registry.models.values() for m in versions.values()]
        drains = [asyncio.ensure_future(model.executor.drain()) for model in models]
        waiting = {*drains, *self._retiring}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=timeout_s)
            for task in late:
                task.cancel()
        self.residency.close()
        await asyncio.gather(*(model.executor.close() for model in models))
        self._opener.close()

    # -- small things --------------------------------------------------------------------------

    def _set(self, key: str, version: int, known: Known, status: Status) -> None:
        known.versions[version] = status
        self._listener(key, version, status)

    def _spawn(self, work: Awaitable[None]) -> None:
        self._retiring.add(task := asyncio.ensure_future(work))
        task.add_done_callback(self._retiring.discard)

"""Composition root: the only module that knows every room. Start order, signals, drain, stop."""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from trivet import __version__
from trivet.backends.api import LoadFailed, ServingError
from trivet.backends.device.nvml import Gpus
from trivet.backends.environments.cache import EnvironmentCache
from trivet.server.auth.core import GuardedCore
from trivet.server.banner import LoadProgress, print_banner
from trivet.server.cache.caching import Caching
from trivet.server.console.room import ConsoleRoom, is_on
from trivet.server.control import RepositoryControl, not_in_repository
from trivet.server.core import Core
from trivet.server.cost.opening import CostRoom
from trivet.server.first_load import failures
from trivet.server.frontends import Frontends
from trivet.server.gating.opening import GateRoom
from trivet.server.hall import Hall
from trivet.server.logs.log import Log, setup_logging
from trivet.server.metrics.config import MetricsConfig
from trivet.server.metrics.custom import CustomMetrics
from trivet.server.models.allowed import Allowed
from trivet.server.models.assemble import Assembler
from trivet.server.models.batch_size import DefaultBatchSizes
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.cpu_memory import GrowthMeter
from trivet.server.models.dispatcher import RequestDispatcher
from trivet.server.models.garbage import LoadedObjects
from trivet.server.models.gpu_memory import GpuLedger, parse_limits
from trivet.server.models.host_policy import HostPolicies
from trivet.server.models.known import Status
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Loader
from trivet.server.models.registry import Registry
from trivet.server.models.sleeping.opening import memory_terms
from trivet.server.models.strangers import Strangers
from trivet.server.remote.repositories import Repositories
from trivet.server.repository.plan import Action, Load, Problem, Stranger, Unload, plan
from trivet.server.repository.scan import RepositoryUnreadableError, Snapshot
from trivet.server.repository.watcher import Watcher
from trivet.server.rollouts.opening import ReleaseRoom
from trivet.server.scheduling.rate_limit import RateLimiter, ResourceLimits
from trivet.server.settings import Settings
from trivet.server.shared_memory.system import SharedMemory
from trivet.server.sockets import loop_factory
from trivet.server.spot.notice import SpotNotice
from trivet.server.tracing.config import TraceConfig
from trivet.server.tracing.tracing import Tracing

log = logging.getLogger(__name__)
_BREAK_OFF_S = 5.0
"""How long a server that has not started yet takes to close what it has."""


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; returns the process's exit code."""
    try:
        log_output = setup_logging(settings)
    except OSError as error:
        reason = error.strerror or error
        log.critical("the server cannot start: --log-file=%s: %s", settings.log_file, reason)
        return 1
    # Until the loop handles it: the first process of a container is not ended by it otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = Server(settings, log_output)
    except (ServingError, RepositoryUnreadableError) as error:
        log.critical("the server cannot start: %s", error)
        return 1
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(server.serve())
        if server.is_broken_off:
            _leave(code)
        return code


def _leave(code: int) -> NoReturn:
    """Ends the process without its threads: models that are being loaded hear of nothing, and may
    take minutes. Their processes end with this one."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class Server:
    """One server in one process, from start to stop."""

    def __init__(self, settings: Settings, log_output: Log | None = None) -> None:
        """`log_output`: the process's log, where it is the server's to change."""
        self.settings = settings
        self.registry = Registry()
        self.registry.is_starting = True
        # With keys, a caller may not know of all models.
        self.registry.suggests_names = not settings.auth_keys_file
        self._progress = LoadProgress(enabled=not settings.no_progress)
        self._loaded_objects = LoadedObjects()
        self._repositories = Repositories(settings)
        self._environments = EnvironmentCache(
            Path(settings.environment_cache),
            settings.max_environment_size,
            settings.environment_cache_size,
        )
        self._strangers = Strangers()
        self.registry.is_stranger = self._strangers.has
        self._control = control = RepositoryControl(settings, self._repositories, self._strangers)
        self._gates = GateRoom(settings, self.registry)
        self._costs = CostRoom(settings)
        self._releases = ReleaseRoom(settings, self.registry, self._gates.keeper.admits)
        self._costs.tell(self._releases.spent)
        is_limited = settings.rate_limit != "off"
        limits = ResourceLimits.parse(settings.rate_limit_resource) if is_limited else None
        self._caching = Caching.open(settings)
        dispatcher = RequestDispatcher(self.registry, control)
        gpus = Gpus.find()
        self._console = ConsoleRoom(gpus) if is_on(settings) else None
        custom_metrics = CustomMetrics()
        self.lifecycle = Lifecycle(
            self.registry,
            self._loader(limits, custom_metrics, gpus),
            Assembler(
                dispatcher,
                settings.default_queue_size,
                settings.delay_scheduler,
                RateLimiter(limits) if limits is not None else None,
                self._caching,
            ),
            load_threads=settings.model_load_thread_count,
            load_retries=settings.model_load_retry_count,
            listener=self._on_status,
            on_end=self._loaded_objects.changed,
            has_summaries=MetricsConfig.parse(settings.metrics_config).summary_latencies,
            terms=memory_terms(settings, gpus),
            is_held=self._releases.is_rolling_out,
            direct=lambda plan: self._gates.keeper.direct(self._releases.directed(plan)),
        )
        control.attach(self.lifecycle)
        self.hall = self._open_hall(dispatcher, log_output)
        self.core: Core = GuardedCore(self.hall) if settings.auth_keys_file else self.hall
        cache = self._caching.cache if self._caching is not None else None
        seen = (cache, gpus, custom_metrics, self._costs.ledger)
        self.frontends = Frontends(self.core, settings, *seen, self._console)
        self._watcher: Watcher | None = None
        self._changes: set[asyncio.Task[str]] = set()
        self._stop_requested = asyncio.Event()
        self._spot = SpotNotice(settings.spot_notice)
        self.is_broken_off = False
        """Whether it ends while models are still being loaded."""

    def _open_hall(self, dispatcher: RequestDispatcher, log_output: Log | None) -> Hall:
        settings = self.settings
        traces = None if self._console is None else self._console.traces
        return self._costs.make_hall(
            self.registry,
            self.lifecycle,
            dispatcher,
            SharedMemory(enabled=settings.allow_client_shm),
            server_id=settings.server_id,
            version=__version__,
            strict_readiness=settings.strict_readiness,
            tracing=Tracing(TraceConfig.parse(settings.trace_config), traces),
            log_output=log_output,
            strangers=self._strangers,
            releases=self._releases.desk,
        )

    def _loader(
        self, limits: ResourceLimits | None, custom_metrics: CustomMetrics, gpus: Gpus
    ) -> Loader:
        """What opens models, as the options say."""
        settings = self.settings
        return Loader(
            RegistryCatalog(self.registry),
            not settings.disable_auto_complete_config,
            # By backend, for all of its models.
            {"llm": {"in_process": "true"}} if settings.llm_in_process else {},
            limits,
            self._caching is not None,
            settings.model_config_name,
            HostPolicies.parse(settings.host_policy),
            custom_metrics,
            DefaultBatchSizes.parse(settings.default_max_batch_size, settings.backend_config),
            Allowed(frozenset(settings.allow_pickle), frozenset(settings.allow_install)),
            self._environments,
            GpuLedger(gpus, parse_limits(settings.model_load_gpu_limit)),
            GrowthMeter() if settings.model_memory_budget else None,
            self._gates.demands,
        )

    async def serve(self) -> int:
        """Starts, serves until told to stop, drains; returns the exit code."""
        self._handle_signals()
        self._spot.start()
        starting = asyncio.ensure_future(self.start())
        stopping = asyncio.ensure_future(self._stop_requested.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await self._break_off(starting)
            return 0
        try:
            starting.result()
        except (OSError, ServingError, RepositoryUnreadableError) as error:
            stopping.cancel()
            log.critical("the server cannot start: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop(), _BREAK_OFF_S if self.is_broken_off else None)
            return 1
        print_banner(self.settings, self.frontends, self.core)
        await stopping
        await self.stop()
        return 0

    async def _break_off(self, starting: "asyncio.Future[None]") -> None:
        """Ends a server that is told to stop before it has started: nobody is served yet, so
        nothing is waited for."""
        self.is_broken_off = True
        starting.cancel()
        await asyncio.wait((starting,))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop(), _BREAK_OFF_S)

    async def start(self) -> None:
        """Listens first, so that probes see a live server, then loads the repository. Raises
        OSError when an address is taken or a repository cannot be read, and LoadFailed when a model
        failed and `exit_on_error` is set."""
        await self.frontends.start()
        await self._releases.start(self._load_again)
        await self._repositories.fetch()
        snapshot = await asyncio.to_thread(self._repositories.scan)
        failed = await self._load_repository(snapshot)
        if failed and self.settings.exit_on_error:
            raise LoadFailed(
                f"model(s) {', '.join(failed)} failed to load, for the reasons above; fix them or "
                "start with --exit-on-error=false to serve the others"
            )
        await self.frontends.prepare()
        self._loaded_objects.settle()
        self.hall.started()
        self._gates.start(self.hall, self.lifecycle.load)
        self._costs.start()
        if self.settings.model_control_mode in ("watch", "poll"):
            await self._watch(snapshot)

    async def stop(self) -> None:
        """Not ready at once, takes requests for drain_delay_secs more, answers what was taken for
        up to exit_timeout_secs, then frees all."""
        self.hall.stop()
        self._spot.close()
        self._repositories.end()
        self.lifecycle.stop_making()
        self.frontends.leave()
        await self._gates.close()
        if self._watcher is not None:
            await self._watcher.close()
        for change in self._changes:
            change.cancel()
        if self._stop_requested.is_set() and not self.is_broken_off:
            await asyncio.sleep(self.settings.drain_delay_secs)
        ends_at_s = time.monotonic() + self.settings.exit_timeout_secs
        await self.lifecycle.finish_sequences(self.settings.exit_timeout_secs)
        await self.frontends.drain(max(0.0, ends_at_s - time.monotonic()))
        self._control.close()
        await self._releases.close()
        await self.lifecycle.stop(max(0.0, ends_at_s - time.monotonic()))
        await self._repositories.close()
        await self.frontends.close()
        await self.hall.tracing.close()
        await self._costs.close()
        if self._caching is not None:
            await self._caching.cache.close()
        self._environments.close()
        self._loaded_objects.close()

    # -- repository ----------------------------------------------------------------------------

    async def _load_repository(self, snapshot: Snapshot) -> list[str]:
        """Loads what the control mode says; returns the names of the models that failed."""
        if snapshot.is_empty:
            self._strangers.warn_of_nothing()
        actions = plan(snapshot, None)
        if self.settings.model_control_mode == "explicit":
            snapshot = await self._control.completed(self.settings.load_model, snapshot)
            actions = plan(snapshot, None)
            wanted = await self._control.closure(self.settings.load_model, snapshot)
            actions = self._chosen(actions, wanted)
        self._announce(actions)
        with self._progress.running(len(actions)):
            loads = [asyncio.ensure_future(self._apply_one(action)) for action in actions]
            failed = await failures(loads, waits_for_all=not self.settings.exit_on_error)
        self.is_broken_off = not all(each.done() for each in loads)
        return failed

    def _chosen(self, actions: tuple[Action, ...], wanted: set[str]) -> tuple[Action, ...]:
        """What `--load-model` names, with the steps of ensembles; in explicit mode the others are
        known but not loaded."""
        if "*" in wanted:
            return actions
        advice = {action.key: action.advice for action in actions if isinstance(action, Stranger)}
        found = {action.key for action in actions} - advice.keys()
        missing = tuple(
            Problem(name, not_in_repository(name, advice.get(name, ""), found))
            for name in sorted(wanted - found)
        )
        for key in (found | self._repositories.unfetched().keys()) - wanted:
            self.lifecycle.know(key)
        chosen = (action for action in actions if action.key in wanted | advice.keys())
        return (*chosen, *missing)

    def _on_status(self, name: str, version: int, status: Status) -> None:
        self._progress.on_status(name, version, status)
        self._repositories.note_serving(name, self.registry.models.get(name, ()))
        self._loaded_objects.changed()
        self._gates.on_status(name, version, status)
        self._releases.on_status(name, version, status)

    def _load_again(self, asked: LoadPlan) -> None:
        """Other versions of a model are to serve, of the files that it was loaded from."""
        if not asked.is_overridden:
            self._apply((Load(asked.folder),))

    def _announce(self, actions: tuple[Action, ...]) -> None:
        """Ensembles wait for those of their steps that are loaded together with them."""
        self.lifecycle.announce(action.key for action in actions if isinstance(action, Load))

    async def _apply_one(self, action: Action) -> str:
        """Carries an action out; returns the model's name if that failed."""
        if isinstance(action, Stranger):
            self._strangers.note(action.key, action.advice)
        else:
            self._strangers.forget(action.key)
        if isinstance(action, Unload | Stranger):
            await self.lifecycle.remove(action.key)
            return ""
        if isinstance(action, Problem):
            self.lifecycle.note_problem(action.key, action.reason)
            return action.key
        try:
            await self.lifecycle.load(action.folder)
        except ServingError:
            # The lifecycle has logged it and keeps the reason for the index.
            return action.key
        return ""

    async def _watch(self, snapshot: Snapshot) -> None:
        self._watcher = Watcher(
            self._repositories.roots,
            self.settings.model_control_mode,
            poll_secs=self.settings.repository_poll_secs,
            applied=snapshot,
            apply=self._apply,
            owed=self.lifecycle.unreadable,
            look=self._repositories.scan,
        )
        await self._watcher.start()
        self._repositories.follow(self._watcher.notice)

    def _apply(self, actions: tuple[Action, ...]) -> None:
        """Begins to carry actions out; one model's slow load does not hold up another's."""
        self._announce(actions)
        for action in actions:
            task = asyncio.ensure_future(self._apply_one(action))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    # -- signals -------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop_requested.is_set():
            log.warning("second %s: stopping now", number.name)
            raise SystemExit(1)
        if not self.hall.is_started():
            log.info("%s: the server has not started yet, and ends", number.name)
            self._stop_requested.set()
            return
        settings = self.settings
        delay = f"serving for {settings.drain_delay_secs:g} s more, then "
        log.info(
            "%s: %sdraining for up to %g s",
            number.name,
            delay if settings.drain_delay_secs else "",
            settings.exit_timeout_secs,
        )
        self._stop_requested.set()

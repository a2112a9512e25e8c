"""Which versions are in memory: admits loads, puts idle ones to sleep, wakes what is asked for.

    AWAKE ──► FALLING ──► ASLEEP ──► WAITING ──► WAKING ──► AWAKE
                            └────────────┴───────────┘ it did not wake, or nobody waits any more

A version that sleeps has its executor, in which requests wait, and no instances: see `Sleeps`. To
wake is to open the same files again, as a load does. Executors of which nothing is loaded
(ensembles, prompts) have nothing to give back and are no residents.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from trivet.backends.api import Instance, LoadFailed, ModelNotReady, ServingError
from trivet.backends.process.trim import give_back
from trivet.server.models.assemble import Assembler
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.loader import Opened
from trivet.server.models.model import Model
from trivet.server.models.opening import Opener
from trivet.server.models.sleeping.budget import FLAG, NO_TERMS, MemoryTerms, Sizes, total
from trivet.server.models.sleeping.claims import Claim, Claims, NotWanted
from trivet.server.models.sleeping.policy import Awake, Terms, who_sleeps
from trivet.server.models.sleeping.resident import TAGS, Resident, Rest, pinned_beside
from trivet.server.repository.unchanged import changed_file

log = logging.getLogger(__name__)
LOOK_S = 0.25
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0


class Residency:
    """Owned by the event loop."""

    def __init__(
        self,
        opener: Opener,
        assembler: Assembler,
        terms: MemoryTerms = NO_TERMS,
        *,
        is_held: Callable[[str], bool] = lambda _: False,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_held`: whether a model must stay awake now; `on_change`: called when instances have
        come or gone."""
        self._opener = opener
        self._assembler = assembler
        self._budget = terms.budget
        self._idle_s = terms.idle_s
        self._is_held = is_held
        self._on_change = on_change
        self._clock = clock
        self._residents: dict[Model, Resident] = {}
        self._claims = Claims()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def residents(self) -> Iterable[Resident]:
        """All of them, for the metrics page."""
        return self._residents.values()

    def rest_of(self, model: Model) -> Resident | None:
        """None for one that has nothing to give back."""
        return self._residents.get(model)

    # -- loads ---------------------------------------------------------------------------------

    async def load(self, plan: LoadPlan, version: int, publish: Callable[[Opened], Model]) -> None:
        """Opens a version, once there is memory for it, and publishes it. Raises what opening does,
        LoadFailed also where it takes more than there is."""
        terms = Terms.read(plan.given, self._idle_s)
        if self._budget is None:
            opened = await self._opener.open(plan, version)
            self._admit(plan, publish(opened), opened, terms)
            return
        estimate = await self._opener.estimate(plan, version)
        self._require(plan, estimate)
        require = partial(self._require, plan, estimate)
        claim = Claim(estimate, terms.priority, lambda: True, require=require)
        try:
            with self._claims.held(claim):
                await self._granted(claim)
                opened = await self._opener.open(plan, version)
                try:
                    self._require(plan, opened.sizes)
                except LoadFailed:
                    await asyncio.to_thread(opened.close)
                    raise
            self._admit(plan, publish(opened), opened, terms)
        finally:
            # Others wait for what this did not need, and nothing else may tell them.
            self._settle()

    def _require(self, plan: LoadPlan, sizes: Sizes) -> None:
        assert self._budget is not None
        fixed = pinned_beside(plan.folder.key, self._residents.values())
        self._budget.require(plan.folder.key, sizes, fixed)

    def _admit(self, plan: LoadPlan, model: Model, opened: Opened, terms: Terms) -> None:
        if model.sleeps is None:
            return
        now_s, sizes = self._clock(), opened.sizes
        self._residents[model] = Resident(plan, model, model.sleeps, sizes, terms, now_s, now_s)
        if (terms.idle_s or self._budget is not None) and self._timer is None:
            self._look_later()

    def ended(self, model: Model) -> None:
        """The version's executor is closed."""
        resident = self._residents.pop(model, None)
        if resident is not None:
            resident.is_over = True
            if resident.retry is not None:
                resident.retry.cancel()
            self._settle()

    def close(self) -> None:
        """Wakes nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for resident in self._residents.values():
            if resident.retry is not None:
                resident.retry.cancel()
        for task in self._tasks:
            task.cancel()

    # -- memory --------------------------------------------------------------------------------

    async def _granted(self, claim: Claim) -> None:
        self._settle()
        await claim.granted

    def _used(self) -> Sizes:
        held = [claim.sizes for claim in self._claims.granted]
        return total([*held, *(e.sizes for e in self._residents.values() if e.has_memory)])

    def _settle(self) -> None:
        """Gives what is free to who is first, and has others give back what he lacks."""
        if self._budget is None or self._is_closed:
            return
        now_s = self._clock()
        for resident in self._residents.values():
            resident.look(now_s)
        for urgent in self._claims.urgent():
            self._serve_at_once(urgent, now_s)
        while (claim := self._claims.first()) is not None:
            lacking = self._budget.lacking(self._used(), claim.sizes)
            if not lacking:
                self._claims.grant(claim)
            elif not self._claims.is_refused(claim):
                self._make_room(lacking, now_s, claim.priority)
                return
        # What was loaded may take more than its files said.
        if lacking := self._budget.lacking(self._used(), {}):
            self._make_room(lacking, now_s, None)

    def _serve_at_once(self, claim: Claim, now_s: float) -> None:
        """Who waits for it computes until it has an answer, and may be the one whose memory is
        lacking: where those that are idle do not do, the budget is exceeded meanwhile."""
        assert self._budget is not None
        lacking = self._budget.lacking(self._used(), claim.sizes)
        if lacking and self._make_room(lacking, now_s, None):
            return
        if lacking:
            text = "models take more than %s: one of them waits for another that had to wake"
            log.warning(text, FLAG)
        self._claims.grant(claim)

    def _make_room(self, lacking: Sizes, now_s: float, priority: int | None) -> bool:
        """Has others give back what is lacking; see `who_sleeps`. Whether it will be there: without
        a priority, soon."""
        residents = list(self._residents.values())
        falling = [each for each in residents if each.rest is Rest.FALLING]
        if priority is None:
            falling = [each for each in falling if not each.has_begun()]
        coming = total(each.sizes for each in falling)
        missing = {place: size - coming.get(place, 0) for place, size in lacking.items()}
        if not any(size > 0 for size in missing.values()):
            return True
        awake = [self._seen(n, e) for n, e in enumerate(residents) if e.rest is Rest.AWAKE]
        chosen = who_sleeps(missing, awake, now_s, priority=priority)
        for each in chosen:
            self._begin_sleep(residents[each.index], "others need its memory")
        return bool(chosen)

    def _seen(self, index: int, resident: Resident) -> Awake:
        return resident.seen(index, is_held=self._is_held(resident.model.key))

    # -- time ----------------------------------------------------------------------------------

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """A few times a second: requests themselves have no part in it."""
        now_s = self._clock()
        for resident in list(self._residents.values()):
            resident.look(now_s)
            limit_s = resident.terms.idle_s
            if limit_s and resident.rest is Rest.AWAKE and now_s - resident.used_s >= limit_s:
                seen = self._seen(0, resident)
                if not seen.is_bound and not seen.is_busy:
                    self._begin_sleep(resident, f"idle for {limit_s:g} s")
        self._settle()
        self._look_later()

    # -- to sleep ------------------------------------------------------------------------------

    async def sleep(self, models: Iterable[Model]) -> None:
        """Puts these to sleep, pinned or not; returns when they are. Who wakes serves those that
        wait for it."""
        falling = []
        for each in [r for model in models if (r := self._residents.get(model)) is not None]:
            if each.rest is Rest.AWAKE:
                self._begin_sleep(each, "asked to")
            if each.rest is Rest.FALLING and each.falling is not None:
                each.tags = set(TAGS)
                falling.append(each.falling)
        if falling:
            await asyncio.wait(falling)

    def _begin_sleep(self, resident: Resident, reason: str) -> None:
        resident.rest = Rest.FALLING
        resident.tags = set()
        resident.falling = self._spawn(self._fall_asleep(resident, reason))

    async def _fall_asleep(self, resident: Resident, reason: str) -> None:
        try:
            await resident.sleeps.sleep(partial(self._wanted, resident))
        except Exception:
            # What it had is given up. Who waits is served by what wakes.
            log.exception("%s did not fall asleep in order", resident.label)
            resident.is_wanted = resident.sleeps.use().is_busy
        if not resident.sleeps.is_asleep:
            # A sequence has begun meanwhile.
            resident.rest = Rest.AWAKE
            return
        resident.rest = Rest.ASLEEP
        resident.model.gpu_memory.taken = {}
        resident.takes(0, self._residents.values())
        await asyncio.to_thread(give_back)
        self._on_change()
        log.info("%s is asleep: %s", resident.label, reason)
        self._settle()
        if resident.is_wanted:
            self._wanted(resident, ())

    # -- awake again ---------------------------------------------------------------------------

    def _wanted(self, resident: Resident, callers: tuple[str, ...]) -> None:
        """A request has come, and waits in the executor."""
        if callers and any(e.model.key in callers for e in self._residents.values()):
            resident.is_urgent = True
            self._settle()
        if resident.rest is not Rest.ASLEEP:
            resident.is_wanted = True
            return
        if resident.error is not None and resident.retry is not None:
            resident.sleeps.stay_asleep(resident.error)
            return
        self._begin_wake(resident, lambda: resident.sleeps.use().is_busy)

    async def wake(self, models: Iterable[Model], tags: Sequence[str]) -> None:
        """Wakes those that sleep, once all tags of theirs were asked for; returns when they are
        awake. Raises ModelNotReady."""
        waking: list[asyncio.Task[None]] = []
        wanted = [r for model in models if (r := self._residents.get(model)) is not None]
        for resident in wanted:
            resident.tags -= set(tags)
            if resident.rest is Rest.ASLEEP and not resident.tags:
                waking.append(self._begin_wake(resident, lambda: True))
        if waking:
            # Not gather: who asked may leave, and requests wait for it by now.
            await asyncio.wait(waking)
        for resident in wanted:
            if resident.error is not None:
                raise resident.error

    def _begin_wake(
        self, resident: Resident, is_wanted: Callable[[], bool]
    ) -> "asyncio.Task[None]":
        if resident.retry is not None:
            resident.retry.cancel()
            resident.retry = None
        resident.rest = Rest.WAITING
        return self._spawn(self._wake(resident, is_wanted))

    async def _wake(self, resident: Resident, is_wanted: Callable[[], bool]) -> None:
        started_s = self._clock()

        def still_wanted() -> bool:
            return not resident.is_over and is_wanted()

        claim = Claim(
            resident.sizes, resident.terms.priority, still_wanted, lambda: resident.is_urgent,
            partial(self._require_beside_pinned, resident),
        )  # fmt: skip
        try:
            with self._claims.held(claim):
                if self._budget is not None:
                    await self._granted(claim)
                resident.rest = Rest.WAKING
                instances = await self._open(resident)
                if not resident.is_over:
                    self._awake(resident, instances, started_s)
        except NotWanted:
            resident.rest = Rest.ASLEEP
            resident.is_wanted = resident.is_urgent = False
            if still_wanted():
                # Somebody came since it was given up.
                self._wanted(resident, ())
        except ServingError as error:
            self._did_not_wake(resident, error)
        except Exception:
            log.exception("%s does not wake", resident.label)
            told = "it failed unexpectedly; the server log has the details"
            self._did_not_wake(resident, LoadFailed(told))
        self._settle()

    def _require_beside_pinned(self, resident: Resident) -> None:
        try:
            self._require(resident.plan, resident.sizes)
        except LoadFailed as error:
            log.warning("%s", error.message)  # who asks need not know which others there are
            raise LoadFailed("what is pinned by now leaves too little memory") from None

    async def _open(self, resident: Resident) -> Sequence[tuple[str, Instance]]:
        """Raises LoadFailed, UnreadableFiles."""
        plan, model = resident.plan, resident.model
        changed = await asyncio.to_thread(changed_file, plan.folder, model.version)
        if changed:
            raise LoadFailed(
                f"its file '{changed}' has changed or gone since it was loaded; load it again"
            )
        opened = await self._opener.open(plan, model.version)
        if resident.is_over or opened.config != model.config:
            await asyncio.to_thread(opened.close)
            if not resident.is_over:
                raise LoadFailed("its files say otherwise than when it was loaded; load it again")
        model.gpu_memory.taken = opened.gpu_memory.taken
        resident.takes(opened.cpu_memory_bytes, self._residents.values())
        return self._assembler.connected(plan, opened, model.statistics)

    def _awake(
        self, resident: Resident, instances: Sequence[tuple[str, Instance]], started_s: float
    ) -> None:
        now_s = self._clock()
        resident.rest, resident.error = Rest.AWAKE, None
        resident.is_wanted = resident.is_urgent = False
        resident.retry_s, resident.tags = 0.0, set()
        resident.used_s = resident.woke_s = now_s
        resident.wake_took_s = now_s - started_s
        resident.num_wakes += 1
        resident.wakes_s.observe(resident.wake_took_s)
        resident.sleeps.wake(instances)
        self._on_change()
        log.info("%s is awake, after %.3f s", resident.label, resident.wake_took_s)

    def _did_not_wake(self, resident: Resident, error: ServingError) -> None:
        """What waits ends with the error. It is tried again after a while, and with what comes
        then."""
        resident.rest = Rest.ASLEEP
        resident.is_wanted = resident.is_urgent = False
        resident.num_failures += 1
        resident.retry_s = min(2 * resident.retry_s or _FIRST_RETRY_S, _LAST_RETRY_S)
        resident.error = ModelNotReady(
            f"{resident.label} sleeps and does not wake: {error.message}",
            retry_after_s=resident.retry_s,
        )
        log.error("%s; the next try is in %g s", resident.error.message, resident.retry_s)
        resident.sleeps.stay_asleep(resident.error)
        if not self._is_closed and not resident.is_over:
            loop = asyncio.get_running_loop()
            resident.retry = loop.call_later(resident.retry_s, self._try_again, resident)

    def _try_again(self, resident: Resident) -> None:
        resident.retry = None
        self._begin_wake(resident, lambda: True)

    def _spawn(self, work: "Awaitable[None]") -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

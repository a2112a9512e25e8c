"""The roll-outs of a server's models: what is decided, and when.

All decisions are taken on the event loop, by one server of those that share a journal: it looks a
few times a second. What it decides counts at once, and is written down in a thread: a server that
is killed in between has lost at most what it will see again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from trivet.backends.api import Generator, InvalidConfig, InvalidRequest, NotFound
from trivet.server.models.known import Status
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.traffic import parse_document
from trivet.server.repository.layout import TRAFFIC_FILE
from trivet.server.rollouts.book import Entry, Event, digest_of, told
from trivet.server.rollouts.chronicle import SERVER, Chronicle
from trivet.server.rollouts.direction import (
    Adopt,
    GiveUp,
    Inherit,
    Start,
    directed,
    next_step,
    start_of,
    traffic_of,
)
from trivet.server.rollouts.experiments import Experiments
from trivet.server.rollouts.guards import COST, DIFFERENCE, GENERATED
from trivet.server.rollouts.looking import Look
from trivet.server.rollouts.machine import Phase, Rollout
from trivet.server.rollouts.policy import Policy, parse_policy, policy_of

log = logging.getLogger(__name__)
LOOK_S = 0.25
PROGRESS_S = 30.0


Gate = Callable[[str, int], str | None]
"""Whether a version of a model may have traffic at all: empty, it may; a text, why not; None: that
is not known yet. Asked once it is loaded, again and again."""


class Rollouts:
    """Owned by the event loop."""

    def __init__(
        self,
        registry: Registry,
        chronicle: Chronicle,
        experiments: Experiments,
        *,
        policy: Policy | None = None,
        gate: Gate | None = None,
        has_costs: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`policy`: of models whose own traffic.toml says nothing of it; None: none. `has_costs`:
        whether requests are priced."""
        self._registry = registry
        self._chronicle = chronicle
        self._experiments = experiments
        self._policy = policy
        self._gate = gate
        self._has_costs = has_costs
        self._clock = clock
        self._looks: dict[str, Look] = {}
        self._plans: dict[str, LoadPlan] = {}
        """What each model's folder asked for when it was looked at last."""
        self._reload: Callable[[LoadPlan], None] = lambda _: None
        self._looked_s = self._saved_s = clock()
        self._task: asyncio.Task[None] | None = None

    def loads_by(self, reload: Callable[[LoadPlan], None]) -> None:
        """Who loads a model again."""
        self._reload = reload

    async def start(self) -> None:
        """Reads what was decided before, and begins to look. Raises OSError."""
        await self._chronicle.start(self.on_others)
        self._task = asyncio.ensure_future(self._go_on())
        self._task.add_done_callback(_tell_of)

    async def close(self) -> None:
        """Looks no more; what is decided is written down."""
        if self._task is not None:
            self._task.cancel()
        self._save()
        await self._chronicle.close()

    def entries(self) -> Mapping[str, Entry]:
        """What is known, by the models' keys."""
        return self._chronicle.book.entries

    def running(self, key: str) -> Rollout:
        """The one that goes on. Raises NotFound."""
        entry = self.entries().get(key)
        if entry is None or entry.running is None:
            raise NotFound(f"no version of model '{key}' is being rolled out")
        return entry.running

    def plan_of(self, key: str) -> LoadPlan:
        """What a model's folder asks for, and what was set by hand. Raises NotFound."""
        plan = self._plans.get(key)
        if plan is None:
            raise NotFound(f"model '{key}' was not loaded from a repository")
        return _by_hand(plan, self._chronicle.book.of(key))

    # -- what serves ---------------------------------------------------------------------------

    def directed(self, plan: LoadPlan) -> LoadPlan:
        """What is to serve of a model that is about to be loaded. Raises InvalidConfig, and
        LoadFailed where nothing is left."""
        key, entry = plan.folder.key, self._chronicle.book.of(plan.folder.key)
        given, plan = plan, _by_hand(plan, entry)
        policy = self.policy_of(plan)
        self._plans[key] = given
        if self._chronicle.leads and (policy is not None or entry.running is not None):
            self._prepare(key, entry, plan, policy)
        return directed(plan, entry, is_by_policy=policy is not None)

    def policy_of(self, plan: LoadPlan) -> Policy | None:
        """None: nothing starts by itself. Raises InvalidConfig."""
        if plan.traffic.split or plan.is_overridden or plan.folder.is_flat:
            return None
        return policy_of(plan.traffic) or self._policy

    def _prepare(self, key: str, entry: Entry, plan: LoadPlan, policy: Policy | None) -> None:
        step = next_step(entry, plan)
        if isinstance(step, GiveUp):
            self.end(key, Event.ABORTED, step.reason)
            step = next_step(entry, plan)
        if isinstance(step, Inherit):
            rollout = self.running(key)
            rollout.inherit(step.reason)
            self._ended(key, rollout)
        if policy is None:
            return
        if isinstance(step, Start) and self._serves_already(key, step.candidate):
            # There was no policy until now.
            step = Adopt(step.candidate)
        if isinstance(step, Adopt):
            self._chronicle.happens(key, Event.ADOPTED, version=step.version)
        elif isinstance(step, Start):
            self.begin(key, step, policy, SERVER)

    def _serves_already(self, key: str, version: int) -> bool:
        router = self._registry.routers.find(key)
        return router is not None and router.usual.version == version

    def begin(self, key: str, step: Start, policy: Policy, by: str) -> None:
        """A version is to be rolled out, once it is loaded."""
        self._chronicle.happens(
            key,
            Event.STARTED,
            by,
            stable=step.stable,
            candidate=step.candidate,
            files=step.files,
            policy=policy.table,
        )
        self.share_out(key)

    def reload(self, key: str) -> None:
        """What is to serve is another now; not where somebody has unloaded the model, or removed it
        meanwhile: that is not taken back by a verdict."""
        if key in self._plans and key in self._registry.models:
            self._reload(self._plans[key])

    def share_out(self, key: str) -> None:
        """Who gets which version is another from now on."""
        if key not in self._plans or key not in self._registry.models:
            return
        plan, entry = self.plan_of(key), self._chronicle.book.of(key)
        # Until what was taken back is unloaded, it is not to be what is newest.
        is_told = entry.rollout is not None or self.policy_of(plan) is not None
        self._registry.share_out(key, traffic_of(plan.traffic, entry, is_by_policy=is_told))

    def on_status(self, key: str, version: int, status: Status) -> None:
        """A version's state has changed."""
        entry = self.entries().get(key)
        rollout = None if entry is None else entry.running
        if rollout is None or version != rollout.candidate or not self._chronicle.leads:
            return
        if status.is_faulty:
            self.end(key, Event.ROLLED_BACK, f"it did not load: {status.reason}")

    def on_others(self, key: str) -> None:
        """Another server has decided."""
        with suppress(InvalidConfig):  # which the load tells
            self.share_out(key)
        if self._chronicle.book.of(key).running is None:
            self._let_go(key)
        self.reload(key)

    # -- looking -------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """What happened since the last time: counts it, and decides what is due."""
        now_s = self._clock()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        for key, entry in list(self.entries().items()):
            if entry.running is not None:
                self._look_at(key, entry.running, passed_s)
        if now_s - self._saved_s >= PROGRESS_S:
            self._saved_s = now_s
            self._save()

    def _look_at(self, key: str, rollout: Rollout, passed_s: float) -> None:
        arms = [self._experiments.arm(key, each) for each in (rollout.candidate, rollout.stable)]
        for arm in arms:
            arm.is_looked_at = True
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = Look(rollout.policy.guards)
        window = look.window(arms[0].take(), arms[1].take(), passed_s)
        serving = self._registry.models.get(key, {})
        model = serving.get(rollout.candidate)
        if model is None or rollout.stable not in serving or not self._chronicle.leads:
            return
        if not model.executor.is_ready():
            self.end(key, Event.ROLLED_BACK, "its instances stopped")
        elif rollout.phase is Phase.WAITING:
            if model.source is None or digest_of(model.source[1]) == self.entries()[key].files:
                self._ask_gate(key, model)
        else:
            step = rollout.step
            rollout.look(passed_s, window)
            if rollout.is_ended:
                self._ended(key, rollout)
            elif rollout.step != step:
                step, candidate = rollout.step, rollout.candidate
                self._chronicle.happened(key, Event.STEPPED, candidate=candidate, step=step)
                self.share_out(key)

    def _ask_gate(self, key: str, model: Model) -> None:
        why_not = "" if self._gate is None else self._gate(key, model.version)
        if why_not == "":
            self._let_in(key, model)
        elif why_not is not None:
            self.end(key, Event.ROLLED_BACK, f"its gate: {why_not}")

    def _let_in(self, key: str, model: Model) -> None:
        rollout = self.running(key)
        if lacking := self._lacking(rollout.policy, model):
            self.end(key, Event.ROLLED_BACK, lacking)
            return
        self._chronicle.happens(key, Event.BEGAN, candidate=rollout.candidate)
        self.share_out(key)

    def _lacking(self, policy: Policy, model: Model) -> str:
        """Why a guard would never see anything; empty: all will."""
        for guard in policy.guards:
            if guard.series in GENERATED and not isinstance(model.executor, Generator):
                return f"guard '{guard.name}' is for models that generate text, which this is not"
            if guard.series == DIFFERENCE and not self._has_shadow(model):
                return f"guard '{guard.name}' needs a [shadow] that is the candidate"
            if guard.series == COST and not self._has_costs:
                return f"guard '{guard.name}' needs prices, which this server has not"
        return ""

    def _has_shadow(self, model: Model) -> bool:
        traffic = self._registry.traffic_of(model.key)
        shadow = traffic.shadow
        return shadow is not None and shadow.version_in(traffic.labels) == model.version

    def _save(self) -> None:
        for key, entry in list(self.entries().items()):
            rollout = entry.running
            if key not in self._registry.models or not self._chronicle.leads:
                continue  # it stands still, and what is written is written for good
            if rollout is not None and rollout.phase is not Phase.WAITING:
                candidate, saved = rollout.candidate, rollout.saved()
                self._chronicle.happened(key, Event.PROGRESS, candidate=candidate, saved=saved)

    # -- verdicts ------------------------------------------------------------------------------

    def end(self, key: str, event: Event, reason: str, by: str = SERVER) -> None:
        """A verdict. Raises InvalidRequest where there can be none such, NotFound."""
        rollout = self.running(key)
        if event is Event.PROMOTED:
            rollout.promote(reason)
        elif event is Event.ABORTED:
            rollout.abort(reason)
        else:
            rollout.fail(reason)
        self._ended(key, rollout, by)

    def _ended(self, key: str, rollout: Rollout, by: str = SERVER) -> None:
        """The traffic first: all else can wait."""
        entry = self._chronicle.book.of(key)
        entry.settle()
        self.share_out(key)
        self._chronicle.happened(
            key,
            Event(rollout.phase.value),
            by,
            candidate=rollout.candidate,
            stable=rollout.stable,
            reason=rollout.reason,
            figures=rollout.saved(),
        )
        is_well = rollout.phase is Phase.PROMOTED
        level = logging.INFO if is_well else logging.WARNING
        log.log(level, "model '%s' version %d was %s", key, rollout.candidate, told(rollout))
        self._let_go(key)
        self.reload(key)

    def _let_go(self, key: str) -> None:
        self._looks.pop(key, None)
        self._experiments.let_go(key)

    # -- commands ------------------------------------------------------------------------------

    def start_by_hand(
        self, key: str, version: int | None, table: Mapping[str, Any] | None, by: str
    ) -> None:
        """Rolls a version out; None: the newest. Raises InvalidConfig, InvalidRequest, NotFound."""
        plan, entry = self.plan_of(key), self._chronicle.book.of(key)
        if plan.traffic.split:
            raise InvalidRequest(
                f"the requests of model '{key}' are split, by {TRAFFIC_FILE} or by hand; a "
                "roll-out shares them out itself: take the split away first"
            )
        if entry.running is not None:
            raise InvalidRequest(
                f"version {entry.running.candidate} of model '{key}' is being rolled out; promote "
                "or abort that first"
            )
        policy = self.policy_of(plan)
        step = start_of(plan, entry if policy is not None else Entry(), version, self._usual(key))
        policy = parse_policy(table) if table is not None else policy or Policy()
        self.begin(key, step, policy, by)
        self.reload(key)

    def _usual(self, key: str) -> int:
        """What gets most of the requests now. Raises NotFound."""
        router = self._registry.routers.find(key)
        if router is None:
            raise NotFound(f"no version of model '{key}' serves")
        return router.usual.version

    def pause(self, key: str, by: str) -> None:
        """It stays in its step. Raises InvalidRequest, NotFound."""
        candidate = self.running(key).candidate
        self._chronicle.happens(key, Event.PAUSED, by, candidate=candidate)

    def resume(self, key: str, by: str) -> None:
        """It goes on. Raises InvalidRequest, NotFound."""
        candidate = self.running(key).candidate
        self._chronicle.happens(key, Event.RESUMED, by, candidate=candidate)


def _by_hand(plan: LoadPlan, entry: Entry) -> LoadPlan:
    """The plan with what somebody has set in the place of the model's file."""
    if entry.traffic is None:
        return plan
    return replace(plan, traffic=parse_document(entry.traffic))


def _tell_of(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("roll-outs are not looked at any more", exc_info=error)

"""Roll-outs without a server: models that load at once, and a clock that the test has."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from made_models import NoExecutor, made_model

from trivet.backends.api import BackendFailed, Signature
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.known import State, Status
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.registry import Registry
from trivet.server.models.traffic import EVEN, Traffic
from trivet.server.repository.config import select_versions
from trivet.server.repository.layout import Fingerprint, ModelFolder
from trivet.server.rollouts.chronicle import Chronicle
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.rollouts.experiments import Experiments
from trivet.server.rollouts.guards import guard_of
from trivet.server.rollouts.journal import Journal, NoJournal
from trivet.server.rollouts.policy import Policy
from trivet.server.rollouts.rollouts import Gate, Rollouts

POLICY = Policy(
    steps=(2000, 10_000),
    bake_s=4.0,
    min_samples=10,
    max_step_s=600.0,
    guards=(guard_of("errors", 0),),
)
NO_ANSWER = BackendFailed("it has none")
SIGNATURE = Signature.from_config(ModelConfig())


class Breakable(NoExecutor):
    """An executor that can be broken."""

    def __init__(self) -> None:
        self.is_broken = False

    def is_ready(self) -> bool:
        return not self.is_broken


@dataclass
class Site:
    """One model, `m`."""

    rollouts: Rollouts
    chronicle: Chronicle
    experiments: Experiments
    desk: ReleaseDesk
    registry: Registry
    config: ModelConfig = field(default_factory=lambda: ModelConfig(name="m"))
    files: dict[int, Fingerprint] = field(default_factory=dict)
    traffic: Traffic = EVEN
    broken: set[int] = field(default_factory=set)
    """Versions that do not load."""
    unreadable: set[int] = field(default_factory=set)
    """Those whose files the disk does not give out now."""
    plan: LoadPlan | None = None
    now_s: list[float] = field(default_factory=lambda: [0.0])

    @classmethod
    async def open(
        cls,
        journal: Journal | None = None,
        policy: Policy | None = POLICY,
        gate: Gate | None = None,
    ) -> Self:
        now_s = [0.0]
        registry, experiments = Registry(), Experiments()
        chronicle = Chronicle(journal or NoJournal())
        rollouts = Rollouts(
            registry, chronicle, experiments, policy=policy, gate=gate, clock=lambda: now_s[0]
        )
        desk = ReleaseDesk(registry, chronicle, experiments, rollouts)
        site = cls(rollouts, chronicle, experiments, desk, registry, now_s=now_s)
        await chronicle.start(rollouts.on_others)
        rollouts.loads_by(lambda _: site.load())
        return site

    def drop(self, *versions: int, stamp: int = 1) -> None:
        """New files of versions, and the load that follows."""
        for version in versions:
            self.files[version] = ((f"model-{version}", 1, stamp, 7),)
        self.load()

    def remove(self, version: int) -> None:
        del self.files[version]
        self.load()

    def load(self) -> None:
        """As the lifecycle does it."""
        folder = ModelFolder("m", Path("m"), (), dict(self.files))
        chosen = tuple(self.traffic.among(select_versions(self.config, self.files)))
        asked = LoadPlan(folder, self.config, chosen, traffic=self.traffic)
        self.plan = plan = self.rollouts.directed(asked)
        if not self.registry.is_shared_out("m"):
            self.registry.share_out("m", plan.traffic)
        for version in plan.versions:
            if version in self.broken | self.unreadable:
                is_faulty = version in self.broken
                status = Status(State.UNAVAILABLE, "no such file", is_faulty)
                self.rollouts.on_status("m", version, status)
            elif version not in self.served:
                made = made_model("m", SIGNATURE, Breakable(), version=version)
                self.registry.publish(made)
        self.registry.share_out("m", self.rollouts.directed(asked).traffic)
        for version in self.served - set(plan.versions):
            self.registry.withdraw("m", version)

    @property
    def served(self) -> set[int]:
        return set(self.registry.models.get("m", {}))

    def executor(self, version: int) -> Breakable:
        found = self.registry.models["m"][version].executor
        assert isinstance(found, Breakable)
        return found

    def usual(self) -> int:
        """What most requests get."""
        return self.registry.routers.describe("m", None).version

    def asked(self, count: int, failing: Collection[int] = ()) -> dict[int, int]:
        """So many requests that name no version come, and end; how many each version got."""
        got: dict[int, int] = {}
        for _ in range(count):
            admitted = self.registry.routers.resolve("m", None)
            got[admitted.version] = got.get(admitted.version, 0) + 1
            arm = self.experiments.arm("m", admitted.version)
            if admitted.version in failing:
                arm.failed(NO_ANSWER)
            else:
                arm.ended(0.01)
        return got

    def passes(self, seconds: float, failing: Collection[int] = (), rate: int = 100) -> None:
        """Time goes by, with requests, until the server looks again."""
        for _ in range(round(seconds / 0.5)):
            self.asked(rate // 2, failing)
            self.now_s[0] += 0.5
            self.rollouts.look()

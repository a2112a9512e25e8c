"""All of it together, as the options say."""

from pathlib import Path

from trivet.server.core import Core
from trivet.server.evaluation.demand import Demands
from trivet.server.gating.evaluations import Evaluations, Load
from trivet.server.models.gate import Gatekeeper
from trivet.server.models.known import State, Status
from trivet.server.models.registry import Registry
from trivet.server.settings import Settings


class GateRoom:
    """Owned by the event loop."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.keeper = Gatekeeper(registry)
        self.demands = Demands(Path(settings.state_dir).expanduser())
        self._evaluations = Evaluations(self.keeper, self.demands.history_dir, settings.lm_eval)

    def on_status(self, key: str, version: int, status: Status) -> None:
        """What has become of a version: one that is ready may have to be evaluated."""
        if status.state is State.READY:
            self.keeper.loaded(key, version)

    def start(self, core: Core, load: Load) -> None:
        """Begins to evaluate, once the models of the start are loaded."""
        self._evaluations.start(core, load)

    async def close(self) -> None:
        """Breaks off what runs."""
        await self._evaluations.close()

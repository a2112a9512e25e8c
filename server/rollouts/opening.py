"""All of it together, as the options say."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from trivet.backends.api import InvalidConfig
from trivet.server.models.known import Status
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.registry import Registry
from trivet.server.rollouts.chronicle import Chronicle
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.rollouts.experiments import Experiments
from trivet.server.rollouts.journal import FileJournal, Journal
from trivet.server.rollouts.policy import read_policy
from trivet.server.rollouts.rollouts import Gate, Rollouts
from trivet.server.rollouts.webhooks import Webhook
from trivet.server.settings import Settings
from trivet.server.shadows.shadows import Shadows

_REDIS = ("redis://", "rediss://", "unix://")


class ReleaseRoom:
    """Owned by the event loop."""

    def __init__(self, settings: Settings, registry: Registry, gate: Gate | None = None) -> None:
        """Raises InvalidConfig."""
        self._webhook = Webhook(settings.rollout_webhook) if settings.rollout_webhook else None
        chronicle = Chronicle(_journal(settings), self._webhook)
        self._shadows = Shadows(registry, _usual_folder(settings) / "differences")
        experiments = self._experiments = Experiments(self._shadows)
        policy = read_policy(Path(settings.rollout_policy)) if settings.rollout_policy else None
        self._rollouts = Rollouts(
            registry,
            chronicle,
            experiments,
            policy=policy,
            gate=gate,
            has_costs=bool(settings.prices),
        )
        self.desk = ReleaseDesk(registry, chronicle, experiments, self._rollouts)

    async def start(self, reload: Callable[[LoadPlan], None]) -> None:
        """Before anything is loaded. Raises OSError."""
        self._rollouts.loads_by(reload)
        await self._rollouts.start()

    def directed(self, plan: LoadPlan) -> LoadPlan:
        """See Rollouts."""
        return self._rollouts.directed(plan)

    def on_status(self, key: str, version: int, status: Status) -> None:
        """See Rollouts."""
        self._rollouts.on_status(key, version, status)

    def is_rolling_out(self, key: str) -> bool:
        """Whether a version of a model is compared with another: neither sleeps, or waking would be
        held against it."""
        entry = self._rollouts.entries().get(key)
        return entry is not None and entry.running is not None

    def spent(self, key: str, version: int, cost: float) -> None:
        """What a request cost, for the guards that go by that."""
        self._experiments.spent(key, version, cost)

    async def close(self) -> None:
        """Writes down what is decided."""
        self._shadows.close()
        await self._rollouts.close()
        if self._webhook is not None:
            self._webhook.close()


def _journal(settings: Settings) -> Journal:
    """Where it is kept. Raises InvalidConfig."""
    place = settings.rollout_state
    if not place.startswith(_REDIS):
        return FileJournal(Path(place).expanduser() if place else _usual_folder(settings))
    try:
        from trivet.server.rollouts.redis_journal import RedisJournal

        return RedisJournal(place)
    except ImportError as error:
        raise InvalidConfig(
            f"--rollout-state: {error.name} is missing; pip install 'trivet[redis]'"
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"--rollout-state cannot be used: {error}") from error


def _usual_folder(settings: Settings) -> Path:
    """For servers of the same repositories: others know other models by the same names."""
    places = sorted(
        str(each.absolute()) if isinstance(each, Path) else each
        for each in settings.model_repository
    )
    name = hashlib.sha256("\0".join(places).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(settings.state_dir).expanduser() / "rollouts" / name

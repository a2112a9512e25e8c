"""All of it together, as the options say."""

from collections.abc import Callable
from pathlib import Path

from trivet.backends.api import InvalidConfig
from trivet.server.models.known import Status
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.registry import Registry
from trivet.server.rollouts.chronicle import Chronicle
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.rollouts.experiments import Experiments
from trivet.server.rollouts.journal import FileJournal, Journal, NoJournal
from trivet.server.rollouts.policy import read_policy
from trivet.server.rollouts.rollouts import Gate, Rollouts
from trivet.server.rollouts.webhooks import Webhook
from trivet.server.settings import Settings


class ReleaseRoom:
    """Owned by the event loop."""

    def __init__(self, settings: Settings, registry: Registry, gate: Gate | None = None) -> None:
        """Raises InvalidConfig."""
        self._webhook = Webhook(settings.rollout_webhook) if settings.rollout_webhook else None
        chronicle = Chronicle(_journal(settings.state_dir), self._webhook)
        experiments = Experiments()
        policy = read_policy(Path(settings.rollout_policy)) if settings.rollout_policy else None
        self._rollouts = Rollouts(registry, chronicle, experiments, policy=policy, gate=gate)
        self.desk = ReleaseDesk(registry, chronicle, experiments, self._rollouts)

    async def start(self, reload: Callable[[LoadPlan], None]) -> None:
        """Before anything is loaded. Raises OSError."""
        await self._rollouts.start(reload)

    def directed(self, plan: LoadPlan) -> LoadPlan:
        """See Rollouts."""
        return self._rollouts.directed(plan)

    def on_status(self, key: str, version: int, status: Status) -> None:
        """See Rollouts."""
        self._rollouts.on_status(key, version, status)

    async def close(self) -> None:
        """Writes down what is decided."""
        await self._rollouts.close()
        if self._webhook is not None:
            self._webhook.close()


def _journal(place: str) -> Journal:
    """Raises InvalidConfig."""
    if not place:
        return NoJournal()
    try:
        if not place.startswith(("redis://", "rediss://", "unix://")):
            return FileJournal(Path(place).expanduser())
        from trivet.server.rollouts.redis_journal import RedisJournal

        return RedisJournal(place)
    except ImportError as error:
        raise InvalidConfig(
            f"--state-dir={place.partition(':')[0]}: {error.name} is missing; "
            "pip install 'trivet[redis]'"
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"--state-dir cannot be used: {error}") from error

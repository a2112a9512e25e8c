"""Which models are made of which others. Owned by the event loop."""

import asyncio
from collections.abc import Iterable

from trivet.backends.api import InvalidConfig
from trivet.ensembles.settings import step_settings
from trivet.protos.model_config_pb2 import ModelConfig


def steps_of(config: ModelConfig) -> frozenset[str]:
    """The models that an ensemble's config names, fallbacks too; none for other models.

    Raises InvalidConfig where the settings of its steps cannot be read.
    """
    if not config.HasField("ensemble_scheduling"):
        return frozenset()
    names = {step.model_name for step in config.ensemble_scheduling.step}
    settings = step_settings(config, f"{config.name}/config.pbtxt")
    names |= {each.fallback for each in settings if each.fallback}
    return frozenset(names - {""})


class Composition:
    """Lets ensembles wait for loads of their steps, and knows whom a change concerns."""

    def __init__(self) -> None:
        self._steps: dict[str, frozenset[str]] = {}
        self._loading: dict[str, asyncio.Event] = {}

    def announce(self, names: Iterable[str]) -> None:
        """Loads of these models are about to begin; `ended` follows for each."""
        for name in names:
            self._loading.setdefault(name, asyncio.Event())

    def ended(self, name: str) -> None:
        """A load is over, well or not."""
        event = self._loading.pop(name, None)
        if event is not None:
            event.set()

    def is_loading(self, name: str) -> bool:
        """Whether a load is announced or in progress."""
        return name in self._loading

    def made_of(self, name: str, steps: frozenset[str]) -> None:
        """What a model is made of from now on."""
        if steps:
            self._steps[name] = steps
        else:
            self._steps.pop(name, None)

    def steps(self, name: str) -> frozenset[str]:
        """What a model is made of."""
        return self._steps.get(name, frozenset())

    def users(self, name: str) -> list[str]:
        """The models that are made of this one, directly."""
        return sorted(user for user, steps in self._steps.items() if name in steps)

    def check(self, name: str) -> None:
        """Raises InvalidConfig where a model is made of itself, over others."""
        circle = self._circle(name)
        if circle:
            raise InvalidConfig(
                f"{name}/config.pbtxt: the ensembles form a cycle: {' -> '.join(circle)}"
            )

    async def wait_for_steps(self, name: str) -> None:
        """Returns when no step of a model is being loaded. Raises InvalidConfig for a circle."""
        self.check(name)
        for step in sorted(self.steps(name)):
            while (event := self._loading.get(step)) is not None and step != name:
                await event.wait()

    def _circle(self, name: str) -> list[str]:
        """The way from a model over its steps back to itself, if there is one."""
        paths = [[name, step] for step in sorted(self.steps(name)) if step != name]
        seen: set[str] = set()
        while paths:
            path = paths.pop()
            if path[-1] == name:
                return path
            if path[-1] not in seen:
                seen.add(path[-1])
                paths += ([*path, step] for step in sorted(self.steps(path[-1])))
        return []

"""Which models are made of which others. Owned by the event loop."""

import asyncio

from trivet.backends.api import InvalidConfig
from trivet.server.repository.names import Names, Reference


class Composition:
    """Lets ensembles wait for loads of their steps, and knows whom a change concerns. Models are
    given by their keys."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._references: dict[str, frozenset[Reference]] = {}
        self._steps: dict[str, frozenset[str]] = {}
        """What these meant when the model was last loaded."""
        self._loading: dict[str, asyncio.Event] = {}

    def announce(self, key: str) -> None:
        """A load of this model is about to begin; `ended` follows."""
        self._loading.setdefault(key, asyncio.Event())

    def ended(self, name: str) -> None:
        """A load is over, well or not."""
        event = self._loading.pop(name, None)
        if event is not None:
            event.set()

    def is_loading(self, name: str) -> bool:
        """Whether a load is announced or in progress."""
        return name in self._loading

    def made_of(self, key: str, steps: frozenset[Reference]) -> None:
        """What a model is made of from now on."""
        if steps:
            self._references[key] = steps
            self._steps[key] = self._names.all_meant(steps)
        else:
            self._references.pop(key, None)
            self._steps.pop(key, None)

    def followed(self, key: str) -> None:
        """A model that moved is being loaded for it. Also one whose load fails does not go on to
        have moved, or it would be loaded without end."""
        if key in self._references:
            self._steps[key] = self.steps_now(key)

    def steps(self, key: str) -> frozenset[str]:
        """What a model is made of."""
        return self._steps.get(key, frozenset())

    def steps_now(self, key: str) -> frozenset[str]:
        """What it would be made of if it were loaded now."""
        return self._names.all_meant(self._references.get(key, ()))

    def users(self, key: str) -> list[str]:
        """The models that are made of this one, directly."""
        return sorted(user for user, steps in self._steps.items() if key in steps)

    def moved(self) -> list[str]:
        """The models that would be made of others than they are: what their steps' names mean has
        changed. None without namespaces."""
        return sorted(user for user, steps in self._steps.items() if self.steps_now(user) != steps)

    async def wait_for_steps(self, name: str) -> None:
        """Returns when no step of a model is being loaded. Raises InvalidConfig for a circle."""
        circle = self._circle(name)
        if circle:
            raise InvalidConfig(
                f"{name}/config.pbtxt: the ensembles form a cycle: {' -> '.join(circle)}"
            )
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

"""Which models bear which name, and which one of them is meant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivet.backends.api import InvalidRequest
from trivet.backends.api.naming import key_of, name_in, namespace_in


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A model as another one names it."""

    name: str
    namespaces: tuple[str, ...] = ()
    """Where it is looked for before everywhere else, in this order."""


def ambiguous(name: str, bearers: Sequence[str]) -> InvalidRequest:
    """Several models bear a name that was given without a namespace."""
    places = " and ".join(f"'{namespace_in(key)}'" for key in bearers)
    examples = " or ".join(f"'{key}'" for key in bearers)
    return InvalidRequest(
        f"There are {len(bearers)} models '{name}', in repositories {places}: model namespace must "
        f"be provided to resolve ambiguity; name {examples}"
    )


class Names:
    """The keys of models by name: one each, unless repositories are namespaces.

    Owned by the event loop, read from any thread: what is under a name is replaced as a whole.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._bearers: dict[str, tuple[str, ...]] = {}
        for key in keys:
            self.take(key)

    def take(self, key: str) -> None:
        """A model bears its name from now on."""
        name = name_in(key)
        self._bearers[name] = tuple(sorted({*self.bearers(name), key}))

    def give_up(self, key: str) -> None:
        """It does not any more."""
        name = name_in(key)
        left = tuple(each for each in self.bearers(name) if each != key)
        if left:
            self._bearers[name] = left
        else:
            self._bearers.pop(name, None)

    def bearers(self, name: str) -> tuple[str, ...]:
        """The keys of the models that bear a name."""
        return self._bearers.get(name, ())

    def has(self, key: str) -> bool:
        """Whether the model with this key bears its name."""
        return key in self.bearers(name_in(key))

    def shown(self, key: str) -> str:
        """What a model can be asked by: its name, if that means no other."""
        name = name_in(key)
        return name if self.bearers(name) == (key,) else key

    def meant(self, reference: Reference) -> tuple[str, ...]:
        """The keys that a reference may mean: several where it is ambiguous, the name itself where
        nobody bears it."""
        name, _ = self.unlabelled(reference.name)
        bearers = self.bearers(name)
        for namespace in reference.namespaces:
            key = key_of(namespace, name)
            if key in bearers:
                return (key,)
        return bearers or (reference.name,)

    def unlabelled(self, name: str) -> tuple[str, str]:
        """A name or key without the label of a version that it ends in, and the label; empty where
        a model is called so as a whole, or nobody is."""
        base, at, label = name.rpartition("@")
        if at and not self.bearers(name_in(name)) and self.bearers(name_in(base)):
            return base, label
        return name, ""

    def all_meant(self, references: Iterable[Reference]) -> frozenset[str]:
        """The keys that any of several references may mean."""
        return frozenset(key for each in references for key in self.meant(each))

    def find(self, reference: Reference) -> str:
        """The key that a reference means, with its label if it has one; the name itself where
        nobody bears it. Raises InvalidRequest for one that is ambiguous."""
        meant = self.meant(reference)
        if len(meant) > 1:
            raise ambiguous(reference.name, meant)
        _, label = self.unlabelled(reference.name)
        return f"{meant[0]}@{label}" if label else meant[0]

"""The models that serve, as a model that is being loaded sees them."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import ModelNotFound, Signature
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.texts import not_in_repository
from trivet.server.repository.names import Reference
from trivet.server.repository.steps import steps_of


class RegistryCatalog:
    """The `Catalog` over a registry. Its maps are replaced as a whole, so any thread may read."""

    def __init__(self, registry: Registry, namespace: str = "") -> None:
        """`namespace`: of the model that looks."""
        self._registry = registry
        self._namespace = namespace

    def within(self, namespace: str) -> "RegistryCatalog":
        """The same for a model of this namespace."""
        return RegistryCatalog(self._registry, namespace)

    def find(self, name: str, namespace: str = "") -> str:
        """See Catalog."""
        return self._registry.names.find(Reference(name, (self._namespace, namespace)))

    def signature(self, name: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""
        return self._model(name, version).signature

    def labels(self, name: str, version: int | str | None) -> Mapping[str, Sequence[str]]:
        """Class labels by output name. Raises as `signature` does."""
        return self._model(name, version).labels

    def _model(self, name: str, version: int | str | None) -> Model:
        """Who asks has waited for all that is loaded beside it: what is not known is not there."""
        if not self._registry.is_known(self._registry.names.unlabelled(name)[0]):
            raise ModelNotFound(not_in_repository(name, self._registry.suggestions))
        return self._registry.routers.describe(name, version).model

    def parts(self, key: str) -> frozenset[str]:
        """The model, and whatever it is made of."""
        names = self._registry.names
        found: set[str] = set()
        todo = {names.unlabelled(key)[0]}
        while todo:
            part = todo.pop()
            found.add(part)
            for model in self._registry.models.get(part, {}).values():
                todo |= names.all_meant(steps_of(model.config, model.namespace)) - found
        return frozenset(found)

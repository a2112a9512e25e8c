"""The models that serve, as a model that is being loaded sees them."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import ModelNotFound, Signature
from trivet.server.models.composition import steps_of
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.texts import not_in_repository


class RegistryCatalog:
    """The `Catalog` over a registry. Its maps are replaced as a whole, so any thread may read."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def signature(self, name: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""
        return self._model(name, version).signature

    def labels(self, name: str, version: int | str | None) -> Mapping[str, Sequence[str]]:
        """Class labels by output name. Raises as `signature` does."""
        return self._model(name, version).labels

    def _model(self, name: str, version: int | str | None) -> Model:
        """Who asks has waited for all that is loaded beside it: what is not known is not there."""
        if not self._registry.is_known(name):
            raise ModelNotFound(not_in_repository(name, self._registry.suggestions))
        return self._registry.routers.resolve(name, version).model

    def parts(self, name: str) -> frozenset[str]:
        """The model, and whatever it is made of."""
        found: set[str] = set()
        todo = {name}
        while todo:
            part = todo.pop()
            found.add(part)
            for model in self._registry.models.get(part, {}).values():
                todo |= steps_of(model.config) - found
        return frozenset(found)

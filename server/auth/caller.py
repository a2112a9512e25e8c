"""Who asks: the caller of the request that is being handled, and what it may do."""

from contextvars import ContextVar
from fnmatch import fnmatchcase

from trivet.server.auth.errors import PermissionDenied
from trivet.server.auth.keys import Key
from trivet.server.auth.limits import Allowance


class Caller:
    """A key in use."""

    __slots__ = ("_models", "allowance", "expires_at_s", "key", "pays_each")

    def __init__(self, key: Key, allowance: Allowance | None, *, pays_each: bool = False) -> None:
        self.key = key
        self.allowance = allowance
        """None: nothing is limited."""
        self.pays_each = pays_each
        """Whether requests are counted where they reach the core: those of a stream."""
        self._models = key.models

    def of_stream(self) -> "Caller":
        """The same, for one stream of many requests."""
        return Caller(self.key, self.allowance, pays_each=True)

    def may_use(self, model: str) -> bool:
        """Whether the key's list of models has it."""
        return self._models is None or any(fnmatchcase(model, each) for each in self._models)

    def require_model(self, model: str) -> None:
        """Raises PermissionDenied, whether there is such a model or not."""
        if not self.may_use(model):
            raise PermissionDenied(
                f"key '{self.key.name}' may not use model '{model[:128]}'; its 'models' in the "
                "server's keys file name others"
            )


class Nobody(Caller):
    """A request without a key, on a route that needs none: it may ask no model."""

    def __init__(self) -> None:
        super().__init__(Key("", b"", frozenset(), models=()), None)

    def require_model(self, model: str) -> None:  # noqa: ARG002
        raise PermissionDenied("a model is asked without a key")


NOBODY = Nobody()
current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)
"""Set by the front rooms for each request; None: the server itself, or no keys are in use."""

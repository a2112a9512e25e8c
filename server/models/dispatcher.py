"""Runs requests of clients and of models: finds the model, checks the request, hands it over."""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from trivet.backends.api import (
    Client,
    Generator,
    InferRequest,
    InvalidRequest,
    ModelNotReady,
    RequestContext,
    ServingError,
    Signature,
    Sink,
)
from trivet.backends.api.model_server import MAX_DEPTH
from trivet.server.models.check import submit
from trivet.server.models.registry import Registry
from trivet.server.models.routing import NOBODY, Admitted, Choice, Key
from trivet.server.repository.upload import NO_FILES


class ModelControl(Protocol):
    """Loads and unloads on behalf of a client or of a model."""

    def load(
        self, name: str, config_json: str | None, files: Mapping[str, bytes] = NO_FILES
    ) -> Awaitable[None]:
        """Returns when the model serves. Raises a ServingError."""

    def unload(self, name: str, *, unload_dependents: bool) -> Awaitable[None]:
        """Returns when the model accepts no more requests. Raises a ServingError."""


class RequestDispatcher:
    """The `ModelServer` over a registry. Called on the event loop only."""

    def __init__(self, registry: Registry, control: ModelControl, namespace: str = "") -> None:
        """`namespace`: of the model that asks; empty for clients, and without namespaces."""
        self._registry = registry
        self._namespace = namespace
        self._resolve = registry.resolver(namespace)
        self._control = control

    def within(self, namespace: str) -> "RequestDispatcher":
        """The same for a model of this namespace: whom it asks is looked for there first."""
        return RequestDispatcher(self._registry, self._control, namespace) if namespace else self

    def infer(self, request: InferRequest, context: RequestContext, sink: Sink) -> None:
        """Runs a request; every outcome goes to the sink, exactly one end. Never raises."""
        try:
            client = context.client or NOBODY
            admitted = self._resolve(request.model_name, request.model_version, request.key, client)
            if context.callers:
                _check_callers(admitted.model.key, context.callers)
            if admitted.choice is Choice.CANDIDATE:
                raise _is_candidate(admitted)
        except ServingError as error:
            sink.fail(error)
            return
        if admitted.watch is not None:
            sink = admitted.watch.observed(request, sink)
        submit(admitted.model, request, context, sink)

    def signature(self, name: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""
        return self._describe(name, version).model.signature

    def is_ready(self, name: str, version: int | str | None) -> bool:
        """Whether a version, or the newest, can compute for a model now; False for what is not
        there, and for a candidate, which no model may ask."""
        try:
            admitted = self._describe(name, version)
        except ServingError:
            return False
        return admitted.choice is not Choice.CANDIDATE and admitted.model.executor.is_ready()

    def is_shared_out(self, name: str) -> bool:
        """See ModelServer."""
        router = self._registry.routers.find(name)
        return router is not None and router.only is None

    def generator(
        self,
        name: str,
        version: int | str | None,
        key: Key = "",
        client: Client | None = None,
    ) -> Generator | None:
        """See ModelServer. Raises as `signature` does."""
        admitted = self._resolve(name, version, key, client or NOBODY)
        if admitted.choice is Choice.CANDIDATE:
            raise _is_candidate(admitted)
        executor = admitted.model.executor
        if not isinstance(executor, Generator):
            return None
        return executor if admitted.watch is None else admitted.watch.generator(executor)

    def _describe(self, name: str, version: int | str | None) -> Admitted:
        meant = self._registry.within(self._namespace, name)
        return self._registry.routers.describe(meant, version)

    async def load(
        self,
        name: str,
        config_json: str | None = None,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        """Loads or reloads a model of the repository; returns when it serves.

        `config_json` replaces its config file for this load, `files` all others. Raises Unavailable
        unless the control mode is explicit, LoadFailed when it fails (what served before goes on).
        """
        await self._control.load(name, config_json, files)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Takes a model out of service; returns when it accepts no more requests.

        `unload_dependents` also unloads the steps of an ensemble that were loaded for it alone.
        """
        await self._control.unload(name, unload_dependents=unload_dependents)


def _is_candidate(admitted: Admitted) -> ModelNotReady:
    """A model may not ask it: what it computes would be traffic."""
    return ModelNotReady(
        f"version {admitted.version} of model '{admitted.name}' has not passed its evaluation, and "
        "answers those alone that may administer the server"
    )


def _check_callers(name: str, callers: tuple[str, ...]) -> None:
    """Raises InvalidRequest where models ask in a circle, or too deep."""
    chain = (*callers, name)
    if name in callers:
        raise InvalidRequest(
            f"model '{name}' is asked on its own behalf ({' -> '.join(chain)}); it "
            "would wait for itself"
        )
    if len(chain) > MAX_DEPTH + 1:
        raise InvalidRequest(
            f"models ask each other in a chain of {len(chain)} ({' -> '.join(chain)}); at most "
            f"{MAX_DEPTH + 1} are allowed"
        )

"""The core for servers with keys: a caller sees and asks the models that its key names.

It stands at the one door that all protocols share, so that none of them can forget it. Steps of
ensembles and what models ask each other do not come through here: a key for an ensemble is enough.
"""

from collections.abc import Mapping

from trivet.backends.api import Generator, InferRequest, RequestContext, ServingError, Sink
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.auth.caller import Caller, current_caller
from trivet.server.auth.metering import MeteredGenerator, TenantsGenerator
from trivet.server.core import Core
from trivet.server.models.routing import Admitted, Key
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described


class GuardedCore(Core):
    """Every method that names a model may also raise PermissionDenied."""

    def resolve(self, name: str, version: int | str | None, key: Key = "") -> Admitted:
        _require(name)
        return super().resolve(name, version, key)

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        caller = current_caller.get()
        if caller is not None:
            try:
                context = _on_account(caller, context)
            except ServingError as error:
                sink.fail(error)
                return
        super().infer(admitted, request, context, sink)

    def generator(self, name: str, version: int | str | None = None, key: Key = "") -> Generator:
        return _callers(super().generator(name, version, key))

    def generators(self) -> dict[str, Generator]:
        found = super().generators()
        return {name: _callers(each) for name, each in found.items() if _is_visible(name)}

    def statistics(self, name: str = "", version: int | None = None) -> pb.ModelStatisticsResponse:
        if name:
            _require(name)
        found = super().statistics(name, version)
        kept = [each for each in found.model_stats if _is_visible(each.name)]
        return pb.ModelStatisticsResponse(model_stats=kept)

    def trace_settings(self, name: str = "") -> Described:
        if name:
            _require(name)
        return super().trace_settings(name)

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        if name:
            _require(name)
        return super().change_trace_settings(changes, name)

    def index(self, *, ready_only: bool) -> pb.RepositoryIndexResponse:
        found = super().index(ready_only=ready_only)
        kept = [each for each in found.models if _is_visible(each.name)]
        return pb.RepositoryIndexResponse(models=kept)

    async def load(self, name: str, config_json: str | None = None) -> None:
        _require(name)
        await super().load(name, config_json)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        _require(name)
        await super().unload(name, unload_dependents=unload_dependents)


def _on_account(caller: Caller, context: RequestContext) -> RequestContext:
    """The context of a request that the caller pays for. Raises RateLimited."""
    allowance, payer = caller.allowance, None
    if allowance is not None:
        if caller.pays_each:
            allowance.take_request()
        if allowance.counts_tokens:
            allowance.require_tokens()
            payer = allowance.charge_tokens
    return RequestContext(
        context.cancel,
        context.deadline,
        context.callers,
        context.residence,
        payer,
        caller.key.tenant,
        context.trace,
        context.window,
    )


def _require(name: str) -> None:
    caller = current_caller.get()
    if caller is not None:
        caller.require_model(name)


def _is_visible(name: str) -> bool:
    caller = current_caller.get()
    return caller is None or caller.may_use(name)


def _callers(generator: Generator) -> Generator:
    """The generator as the caller has it: its tokens are counted, its prompts are its own."""
    caller = current_caller.get()
    if caller is None:
        return generator
    own = TenantsGenerator(generator, caller.key.tenant)
    allowance = caller.allowance
    if allowance is None or not allowance.counts_tokens:
        return own
    return MeteredGenerator(own, allowance)

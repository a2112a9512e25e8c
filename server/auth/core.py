"""The core for servers with keys: a caller sees and asks the models that its key names.

It stands at the one door that all protocols share, so that none of them can forget it. Steps of
ensembles and what models ask each other do not come through here: a key for an ensemble is enough.
"""

from collections.abc import Iterable, Mapping

from trivet.backends.api import (
    Client,
    Generator,
    InferRequest,
    Measured,
    PrefixCaching,
    RequestContext,
    ServingError,
    Sink,
)
from trivet.backends.api.adapting import SEPARATOR
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.backends.api.naming import name_in
from trivet.protos import grpc_service_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.auth.caller import Caller, current_caller
from trivet.server.auth.errors import PermissionDenied
from trivet.server.auth.metering import MeteredGenerator, TenantsGenerator
from trivet.server.auth.releases import GuardedReleases
from trivet.server.auth.scopes import Scope
from trivet.server.auth.sleeping import GuardedSleeping
from trivet.server.core import Core, Payer, Releases, Served, Sleeping
from trivet.server.logs.setting import LogValue
from trivet.server.models.known import IndexRow
from trivet.server.models.model import Model
from trivet.server.models.routing import NOBODY, Admitted, Choice, Key
from trivet.server.repository.upload import NO_FILES
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described


class GuardedCore:
    """A `Core` in front of another: every method that names a model may also raise
    PermissionDenied.

    It defines each of them itself and passes on nothing that it does not: a method that `Core` gets
    has to be thought about here, too. A test sees to that.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.shared_memory = core.shared_memory
        self.tracing = core.tracing
        self.releases: Releases = GuardedReleases(core.releases, self._require)
        self.sleeping: Sleeping = GuardedSleeping(core.sleeping, self._require, _is_visible)

    def _require(self, model: str) -> None:
        caller = current_caller.get()
        if caller is None:
            return
        # Keys name models by their names: a namespace before it opens no other.
        name = name_in(model)
        base, at, label = name.rpartition("@")
        plain = f"{base}{label[label.find(SEPARATOR) :] if SEPARATOR in label else ''}"
        if at and any(map(caller.may_use, (name, base, plain))):
            # A version by its label, unless another model is called so: what it means counts.
            name = self._core.resolve(model, None).name
        caller.require_model(name)

    # -- what a model is asked -----------------------------------------------------------------

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        """See Core. Who has what this gives may ask it: `infer` looks no further."""
        self._require(name)
        admitted = self._core.resolve(name, version, key, asker)
        _require_for_candidate(admitted)
        return admitted

    def account(self) -> Payer | None:
        """See Core. The caller pays."""
        caller = current_caller.get()
        return None if caller is None else _payer_of(caller)

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        """See Core. The caller pays."""
        caller = current_caller.get()
        if caller is not None:
            try:
                context = _on_account(caller, context)
            except ServingError as error:
                sink.fail(error)
                return
        self._core.infer(admitted, request, context, sink)

    def generator(
        self,
        name: str,
        version: int | str | None = None,
        key: Key = "",
        asker: Client = NOBODY,
    ) -> tuple[Generator, Mapping[str, str]]:
        """See Core. The caller pays."""
        self._require(name)
        if version is not None or "@" in name:  # nobody gets a candidate who names none
            _require_for_candidate(self._core.resolve(name, version))
        generator, told = self._core.generator(name, version, key, asker)
        return _callers(generator), told

    def generators(self) -> dict[str, Generator]:
        """See Core. The caller's."""
        found = self._core.generators()
        return {name: _callers(each) for name, each in found.items() if _is_visible(name)}

    def unnamed_generators(self) -> list[str]:
        """See Core. The caller's: others are not what it may mean."""
        return [name for name in self._core.unnamed_generators() if _is_visible(name)]

    def encoders(self) -> dict[str, EncoderInfo]:
        """See Core. The caller's."""
        found = self._core.encoders()
        return {name: info for name, info in found.items() if _is_visible(name)}

    def image_classifiers(self) -> dict[str, ImageClassifierInfo]:
        """See Core. The caller's."""
        found = self._core.image_classifiers()
        return {name: info for name, info in found.items() if _is_visible(name)}

    # -- what there is -------------------------------------------------------------------------

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """See Core. Names no model."""
        return self._core.server_metadata()

    def model_metadata(self, name: str, version: int | str | None) -> pb.ModelMetadataResponse:
        """See Core."""
        self._require(name)
        return self._core.model_metadata(name, version)

    def model_config(self, name: str, version: int | str | None) -> ModelConfig:
        """See Core."""
        self._require(name)
        return self._core.model_config(name, version)

    def statistics(
        self, name: str = "", version: int | str | None = None
    ) -> pb.ModelStatisticsResponse:
        """See Core. The caller's models."""
        if name:
            self._require(name)
        found = self._core.statistics(name, version)
        kept = [each for each in found.model_stats if _is_visible(each.name)]
        return pb.ModelStatisticsResponse(model_stats=kept)

    def index(self, *, ready_only: bool) -> list[IndexRow]:
        """See Core. The caller's models."""
        return [row for row in self._core.index(ready_only=ready_only) if _is_visible(row.name)]

    # -- health: probes have no keys -----------------------------------------------------------

    def is_live(self) -> bool:
        """See Core. For everybody."""
        return self._core.is_live()

    def is_stopping(self) -> bool:
        """See Core. For everybody."""
        return self._core.is_stopping()

    def is_ready(self) -> bool:
        """See Core. For everybody."""
        return self._core.is_ready()

    def is_generating(self) -> bool:
        """See Core. For everybody."""
        return self._core.is_generating()

    def is_model_ready(self, name: str, version: int | str | None) -> bool:
        """See Core. For everybody: it says neither what a model is nor that there is one."""
        return self._core.is_model_ready(name, version)

    # -- counters: the metrics page has a scope of its own, and shows all models -----------------

    def all_statistics(self) -> Iterable[ModelStatistics]:
        """See Core. Of all models."""
        return self._core.all_statistics()

    def loaded(self) -> Iterable[Model]:
        """See Core. Of all models."""
        return self._core.loaded()

    def measured(self) -> dict[Served, Measured]:
        """See Core. Of all models."""
        return self._core.measured()

    # -- control -------------------------------------------------------------------------------

    def trace_settings(self, name: str = "") -> Described:
        """See Core."""
        if name:
            self._require(name)
        return self._core.trace_settings(name)

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        """See Core."""
        if name:
            self._require(name)
        return self._core.change_trace_settings(changes, name)

    def log_settings(self) -> dict[str, LogValue]:
        """See Core. Names no model."""
        return self._core.log_settings()

    def change_log_settings(self, changes: Mapping[str, object]) -> dict[str, LogValue]:
        """See Core. Names no model."""
        return self._core.change_log_settings(changes)

    def prefix_caches(self) -> Iterable[tuple[str, PrefixCaching]]:
        """See Core. The caller's."""
        return [pair for pair in self._core.prefix_caches() if _is_visible(pair[0])]

    async def load(
        self,
        name: str,
        config_json: str | None = None,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        """See Core."""
        self._require(name)
        await self._core.load(name, config_json, files)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """See Core."""
        self._require(name)
        await self._core.unload(name, unload_dependents=unload_dependents)

    async def load_adapter(
        self, name: str, folder: str, base: str = "", *, in_place: bool = False
    ) -> None:
        """See Core. The name as it is given is what the key has to name."""
        self._require(f"{base}:{name}" if base else name)
        await self._core.load_adapter(name, folder, base, in_place=in_place)

    async def unload_adapter(self, name: str, base: str = "") -> None:
        """See Core."""
        self._require(f"{base}:{name}" if base else name)
        await self._core.unload_adapter(name, base)


def _on_account(caller: Caller, context: RequestContext) -> RequestContext:
    """The context of a request that the caller pays for. Raises RateLimited."""
    if caller.pays_each and caller.allowance is not None:
        caller.allowance.take_request()
    payer = context.on_tokens or _payer_of(caller)
    return RequestContext(
        context.cancel,
        context.deadline,
        context.callers,
        context.residence,
        payer,
        caller.key.tenant,
        context.trace,
        context.window,
        context.client,
    )


def _payer_of(caller: Caller) -> Payer | None:
    """None where tokens are not limited. Raises RateLimited."""
    allowance = caller.allowance
    if allowance is None or not allowance.counts_tokens:
        return None
    allowance.require_tokens()
    return allowance.charge_tokens


def _is_visible(model: str) -> bool:
    caller = current_caller.get()
    return caller is None or caller.may_use(name_in(model))


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


def _require_for_candidate(admitted: Admitted) -> None:
    """A version that has not passed its evaluation answers the scope `admin` alone. Raises
    PermissionDenied."""
    if admitted.choice is not Choice.CANDIDATE:
        return
    caller = current_caller.get()
    if caller is not None and Scope.ADMIN not in caller.key.scopes:
        raise PermissionDenied(
            f"version {admitted.version} of model '{admitted.name[:128]}' has not passed its "
            f"evaluation: key '{caller.key.name}' needs the scope '{Scope.ADMIN}' for it"
        )

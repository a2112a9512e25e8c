"""The hall: the `Core` over the models that serve.

Finds the model, checks the request against it and hands it to the model's executor. Knows no
protocol; its answers are the wire messages that both protocols share.
"""

from collections.abc import Iterable, Mapping

from trivet.backends.api import (
    AsksAnother,
    Client,
    Generator,
    InferRequest,
    InvalidRequest,
    Measured,
    ModelNotFound,
    PrefixCaching,
    RequestContext,
    ServingError,
    Sink,
    Trace,
    Unsupported,
    trouble_of,
)
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.backends.api.naming import name_in, namespace_in
from trivet.backends.api.value import changed
from trivet.protos import grpc_service_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.core import Payer, Releases, Served, Sleeping
from trivet.server.logs.log import Log
from trivet.server.logs.setting import LogValue
from trivet.server.models.adapters import Adapters
from trivet.server.models.check import submit
from trivet.server.models.dispatcher import RequestDispatcher
from trivet.server.models.known import IndexRow, State, Status
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.routing import NOBODY, ROUTE_HEADER, Admitted, Choice, Key
from trivet.server.models.sleeping.desk import SleepDesk
from trivet.server.models.sleeping.resident import Rest
from trivet.server.models.strangers import Strangers
from trivet.server.models.texts import nearest
from trivet.server.protocol.extensions import EXTENSIONS
from trivet.server.repository.upload import NO_FILES
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.shared_memory.system import SharedMemory
from trivet.server.tracing.generating import TracedGenerator
from trivet.server.tracing.record import AttributeValue
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described, Tracing


class Hall:
    """A `Core` for everybody; see there what its methods promise. Owned by the event loop."""

    def __init__(
        self,
        registry: Registry,
        lifecycle: Lifecycle,
        dispatcher: RequestDispatcher,
        shared_memory: SharedMemory,
        *,
        server_id: str,
        version: str,
        strict_readiness: bool = True,
        tracing: Tracing | None = None,
        log_output: Log | None = None,
        strangers: Strangers | None = None,
        releases: Releases | None = None,
    ) -> None:
        """Without `releases` nothing is rolled out."""
        self.releases = releases or ReleaseDesk.alone(registry)
        self._registry = registry
        self._adapters = Adapters(registry)
        self._lifecycle = lifecycle
        self.sleeping: Sleeping = SleepDesk(registry, lifecycle.residency)
        self._dispatcher = dispatcher
        self.shared_memory = shared_memory
        self.tracing = tracing or Tracing()
        self._log = log_output
        self._strangers = strangers or Strangers()
        self._id = server_id
        self._version = version
        self._strict_readiness = strict_readiness
        self._is_started = False
        self._is_stopping = False

    # -- inference -----------------------------------------------------------------------------

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        try:
            return self._registry.routers.resolve(name, version, key, asker)
        except ServingError as error:
            tracer = self.tracing.tracer
            if tracer is not None:
                tracer.refused(name, str(key), error)
            raise

    def _described(self, name: str, version: int | str | None) -> Admitted:
        return self._registry.routers.describe(name, version)

    def account(self) -> Payer | None:
        return None

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        if admitted.watch is not None:
            sink = admitted.watch.observed(request, sink)
        tracer = self.tracing.tracer
        if tracer is not None and (traced := tracer.begin(request, sink)) is not None:
            traced.part.span.attributes.update(_told_of(admitted))
            context, sink = changed(context, trace=self._part(context, traced.part)), traced
        submit(admitted.model, request, context, sink)

    def _part(self, context: RequestContext, part: Trace) -> Trace:  # noqa: ARG002
        """What models tell of a traced request."""
        return part

    def generator(
        self,
        name: str,
        version: int | str | None = None,
        key: Key = "",
        asker: Client = NOBODY,
    ) -> tuple[Generator, Mapping[str, str]]:
        admitted = self._find_generator(name, version, key, asker)
        return self._generator_of(admitted, key, asker), admitted.told

    def _find_generator(
        self, name: str, version: int | str | None, key: Key, asker: Client
    ) -> Admitted:
        """Raises as `generator` does."""
        try:
            admitted = self._registry.routers.resolve(name, version, key, asker)
        except ModelNotFound:
            near = nearest(name, self._registry.suggestions)
            meant = f" Did you mean `{near}`?" if near else ""
            raise ModelNotFound(f"The model `{name[:128]}` does not exist.{meant}") from None
        if not isinstance(admitted.model.executor, Generator):
            raise ModelNotFound(f"The model `{name[:128]}` does not generate text.")
        return admitted

    def _generator_of(self, admitted: Admitted, key: Key, asker: Client) -> Generator:
        executor, tracer = admitted.model.executor, self.tracing.tracer
        assert isinstance(executor, Generator), "found as one"
        found: Generator = executor
        if isinstance(executor, AsksAnother):
            found = executor.for_one_request(key, asker)
        if admitted.watch is not None:
            found = admitted.watch.generator(found)
        if tracer is None:
            return found
        return TracedGenerator(found, tracer, admitted.model, _told_of(admitted))

    def generators(self) -> dict[str, Generator]:
        found = ((name, model.executor) for name, model in self._registry.usual())
        ready = {
            name: each for name, each in found if isinstance(each, Generator) and each.is_ready()
        }
        return ready | self._adapters.generators(ready)

    def unnamed_generators(self) -> list[str]:
        infos = ((name, each.info) for name, each in self.generators().items())
        return [name for name, info in infos if not info.is_ensemble and not info.parent]

    async def load_adapter(
        self, name: str, folder: str, base: str = "", *, in_place: bool = False
    ) -> None:
        await self._adapters.load(name, folder, base, in_place=in_place)

    async def unload_adapter(self, name: str, base: str = "") -> None:
        await self._adapters.unload(name, base)

    def encoders(self) -> dict[str, EncoderInfo]:
        usual = self._registry.usual()
        found = ((name, EncoderInfo.of(m.config)) for name, m in usual if m.executor.is_ready())
        return {name: info for name, info in found if info is not None}

    def image_classifiers(self) -> dict[str, ImageClassifierInfo]:
        usual = ((n, m) for n, m in self._registry.usual() if m.executor.is_ready())
        found = ((name, ImageClassifierInfo.of(model.config)) for name, model in usual)
        return {name: info for name, info in found if info is not None}

    def measured(self) -> dict[Served, Measured]:
        found: dict[Served, Measured] = {}
        for key, versions in self._registry.models.items():
            name = self._registry.names.shown(key)
            for version, model in versions.items():
                if model.measured is not None:
                    told = str(version) if len(versions) > 1 else ""
                    found[Served(name, told)] = model.measured
        return found

    def is_generating(self) -> bool:
        usual = (model.executor for _, model in self._registry.usual())
        return (
            self._is_started
            and not self._is_stopping
            and all(each.is_ready() for each in usual if isinstance(each, Generator))
        )

    # -- health --------------------------------------------------------------------------------

    def started(self) -> None:
        """The first load of the repository is over, well or not."""
        self._is_started = True
        self._registry.is_starting = False

    def is_started(self) -> bool:
        """Whether the first load of the repository is over."""
        return self._is_started

    def stop(self) -> None:
        """The server is stopping: not ready from now on."""
        self._is_stopping = True

    def is_live(self) -> bool:
        return True

    def is_stopping(self) -> bool:
        return self._is_stopping

    def is_ready(self) -> bool:
        """Whether requests can be sent: started, not stopping, and every known model serves.

        A failed newer version of a model that still serves does not make the server unready, nor
        does a model that was unloaded on purpose. Without strict readiness models do not count.
        """
        if not self._is_started or self._is_stopping:
            return False
        return not self._strict_readiness or all(map(self._serves, self._lifecycle.known))

    def _serves(self, name: str) -> bool:
        versions = self._registry.models.get(name)
        if versions:
            # A candidate gets no requests: whether it is well is no concern of who sends some.
            asked = versions.keys() - self._registry.candidates(name).keys()
            return all(versions[each].executor.is_ready() for each in asked)
        known = self._lifecycle.known[name]
        return not known.failure and all(
            status.reason == "unloaded" or status.state is State.UNLOADING
            for status in known.versions.values()
        )

    def is_model_ready(self, name: str, version: int | str | None) -> bool:
        try:
            return self._described(name, version).model.executor.is_ready()
        except ServingError:
            return False

    # -- what there is -------------------------------------------------------------------------

    def server_metadata(self) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name=self._id, version=self._version, extensions=EXTENSIONS
        )

    def model_metadata(self, name: str, version: int | str | None) -> pb.ModelMetadataResponse:
        found = self._described(name, version)
        model = found.model
        is_named = version is not None or found.choice is Choice.LABEL
        own = self._registry.models.get(model.key, {model.version: model})  # else an adapter
        versions = [model.version] if is_named else sorted(own)
        metadata = pb.ModelMetadataResponse(
            name=model.name,
            versions=map(str, versions),
            platform=model.config.platform or model.config.backend,
        )
        signature = model.signature
        for specs, tensors in (
            (signature.inputs, metadata.inputs),
            (signature.outputs, metadata.outputs),
        ):
            for spec in specs.values():
                tensors.add(
                    name=spec.name, datatype=spec.datatype.value, shape=signature.full_dims(spec)
                )
        return metadata

    def model_config(self, name: str, version: int | str | None) -> ModelConfig:
        return self._described(name, version).model.config

    def statistics(
        self, name: str = "", version: int | str | None = None
    ) -> pb.ModelStatisticsResponse:
        stats = (model.statistics.to_message() for model in self._chosen(name, version))
        return pb.ModelStatisticsResponse(model_stats=stats)

    def all_statistics(self) -> Iterable[ModelStatistics]:
        return self._lifecycle.statistics()

    def _chosen(self, name: str, version: int | str | None) -> list[Model]:
        if not name:
            models = self._registry.models
            return [models[n][v] for n in sorted(models) for v in sorted(models[n])]
        try:
            found = self._described(name, version)
        except InvalidRequest:
            raise
        except ServingError:
            text = f"requested model '{name}' is not available"
            if version is not None and self._registry.routers.find(name) is not None:
                text = f"requested model version is not available for model '{name}'"
            raise InvalidRequest(text) from None
        if version is not None or found.choice is Choice.LABEL:
            return [found.model]
        versions = self._registry.models.get(found.model.key)
        if versions is None:
            return [found.model]  # an adapter
        return [versions[v] for v in sorted(versions)]

    def trace_settings(self, name: str = "") -> Described:
        if name:
            self._described(name, None)
        return self.tracing.describe(name)

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        if name:
            self._described(name, None)
        self.tracing.update(changes, name)
        return self.tracing.describe(name)

    def log_settings(self) -> dict[str, LogValue]:
        return self._own_log().setting.describe()

    def change_log_settings(self, changes: Mapping[str, object]) -> dict[str, LogValue]:
        output = self._own_log()
        output.change(output.setting.changed(changes))
        return output.setting.describe()

    def _own_log(self) -> Log:
        if self._log is None:
            raise Unsupported("the log belongs to the program that this server runs in")
        return self._log

    def index(self, *, ready_only: bool) -> list[IndexRow]:
        rows: list[IndexRow] = []
        for key, known in self._lifecycle.known.items():
            model = name_in(key), namespace_in(key)
            for version, status in sorted(known.versions.items()):
                state, reason = self._condition(key, version, status)
                if state is State.READY or not ready_only:
                    rows.append(IndexRow(*model, str(version), state.value, reason))
            if not ready_only and (known.failure or not known.versions):
                shown = State.UNAVAILABLE.value if known.failure else ""
                rows.append(IndexRow(*model, state=shown, reason=known.failure))
        rows += self._adapters.index(ready_only=ready_only)
        rows.sort(key=lambda row: (row.name, row.namespace))
        return rows if ready_only else [*rows, *self._strangers.rows(is_alone=not rows)]

    def _condition(self, name: str, version: int, status: Status) -> tuple[State, str]:
        """State and reason: a version that was loaded well may have lost its process since."""
        model = self._registry.models.get(name, {}).get(version)
        if status.state is not State.READY or model is None or model.executor.is_ready():
            candidate = self._registry.candidates(name).get(version)
            why = f"candidate: {candidate}" if candidate else self._rest_of(model)
            return status.state, status.reason or why
        return State.UNAVAILABLE, trouble_of([model.executor]) or "not ready"

    def _rest_of(self, model: Model | None) -> str:
        resident = self._lifecycle.residency.rest_of(model) if model is not None else None
        return "" if resident is None or resident.rest is Rest.AWAKE else resident.rest.value

    def loaded(self) -> Iterable[Model]:
        return (model for versions in self._registry.models.values() for model in versions.values())

    # -- model control -------------------------------------------------------------------------

    def prefix_caches(self) -> Iterable[tuple[str, PrefixCaching]]:
        found = ((model.key, model.executor) for model in self.loaded())
        return [(name, each) for name, each in found if isinstance(each, PrefixCaching)]

    async def load(
        self,
        name: str,
        config_json: str | None = None,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        await self._dispatcher.load(name, config_json, files)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        await self._dispatcher.unload(name, unload_dependents=unload_dependents)


def _told_of(admitted: Admitted) -> dict[str, AttributeValue]:
    """What traces say of the choice: of models whose traffic is anybody's concern."""
    if not admitted.told:
        return {}
    return {"trivet.version": admitted.version, "trivet.route": admitted.told[ROUTE_HEADER]}

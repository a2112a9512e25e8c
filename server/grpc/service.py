"""The RPC table of inference.GRPCInferenceService, grpc.health.v1.Health and trivet.Releases."""

import asyncio
import logging
from collections.abc import Awaitable

from google.protobuf.message import Message

from trivet.backends.api import (
    CancelToken,
    InferResponse,
    RequestContext,
    ServingError,
    Unsupported,
)
from trivet.backends.api.request import ON_HOST
from trivet.protos import grpc_service_pb2 as pb
from trivet.protos import health_pb2
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.grpc.asking import MetadataClient, resolved
from trivet.server.grpc.codec import Decoded, Decoder, Encoder
from trivet.server.grpc.errors import code_of
from trivet.server.grpc.handlers import (
    INTERNAL_TEXT,
    parse,
    plain,
    refuse_repository_name,
    unsendable,
)
from trivet.server.grpc.logging import answer_log_settings
from trivet.server.grpc.releases import ReleaseRpcs
from trivet.server.grpc.shared_memory import SharedMemoryRpcs
from trivet.server.grpc.stream import InferStream
from trivet.server.grpc.trace import answer_trace_setting, note_arrival
from trivet.server.grpc.transport import Call, Code, Rows, Stream, Unary
from trivet.server.grpc.wire import Buffer
from trivet.server.models.routing import Admitted
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.protocol.loading import read_load
from trivet.server.protocol.outputs import MAX_RESPONSE_BYTES, fulfil, residence_of
from trivet.server.protocol.versions import parse_version

log = logging.getLogger(__name__)
PREFIX = "/inference.GRPCInferenceService/"


def _value(parameter: pb.ModelRepositoryParameter) -> object:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


class UnarySink:
    """The answer to one ModelInfer call."""

    __slots__ = ("_call", "_decoded", "_model", "_service")

    def __init__(
        self, service: "Service", call: Call, admitted: Admitted, decoded: Decoded
    ) -> None:
        self._service = service
        self._model = admitted.model
        self._call = call
        self._decoded = decoded

    def send(self, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002
        """Sends the one response. A decoupled model does not get here."""
        try:
            in_region = fulfil(self._service.core, self._model, response, self._decoded.wishes)
            message = self._service.encoder.encode(response, in_region, final=None)
        except ServingError as error:
            self.fail(error)
            return
        except Exception:
            log.exception("an answer cannot be sent; request %s", response.id or "-")
            # The door of answers: without an end its client would wait for ever.
            self.fail(unsendable(response))
            return
        self._call.answer(message)

    def finish(self) -> None:
        """A model that does not answer at all."""
        self._call.fail(Code.INTERNAL, "expected a single response, got 0")

    def fail(self, error: ServingError) -> None:
        """Ends the call with the error's code and text."""
        self._call.fail(code_of(error), error.message)


class Service:
    """Answers RPCs from the core. Owned by the event loop."""

    def __init__(
        self,
        core: Core,
        forwarding: Forwarding | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        """Without `forwarding` models see no metadata."""
        self.core = core
        self._forwarding = forwarding
        self.encoder = Encoder(max_response_bytes)
        self.decoder = Decoder(core.shared_memory)
        self._regions = SharedMemoryRpcs(core.shared_memory)
        self._tasks: set[asyncio.Task[None]] = set()

    def rows(self) -> Rows:
        """The whole table: full method path to handler, and who may call it."""
        live = plain(pb.ServerLiveRequest, self._server_live)
        ready = plain(pb.ServerReadyRequest, self._server_ready)
        model_ready = plain(pb.ModelReadyRequest, self._model_ready)
        health = plain(health_pb2.HealthCheckRequest, self._health)
        server = plain(pb.ServerMetadataRequest, self._server_metadata)
        model = plain(pb.ModelMetadataRequest, self._model_metadata)
        config = plain(pb.ModelConfigRequest, self._model_config)
        statistics = plain(pb.ModelStatisticsRequest, self._statistics)
        index = plain(pb.RepositoryIndexRequest, self._index)
        trace = plain(pb.TraceSettingRequest, self._trace_setting)
        log_settings = plain(pb.LogSettingsRequest, self._log_settings)
        return {
            PREFIX + "ModelInfer": Unary(self._infer, Scope.INFER, Api.INFERENCE),
            PREFIX + "ModelStreamInfer": Stream(self._open_stream, Scope.INFER, Api.INFERENCE),
            PREFIX + "ServerLive": Unary(live, Scope.OPEN, Api.HEALTH),
            PREFIX + "ServerReady": Unary(ready, Scope.OPEN, Api.HEALTH),
            PREFIX + "ModelReady": Unary(model_ready, Scope.OPEN, Api.HEALTH),
            "/grpc.health.v1.Health/Check": Unary(health, Scope.OPEN, Api.HEALTH),
            PREFIX + "ServerMetadata": Unary(server, Scope.ANY, Api.METADATA),
            PREFIX + "ModelMetadata": Unary(model, Scope.ANY, Api.METADATA),
            PREFIX + "ModelConfig": Unary(config, Scope.ANY, Api.MODEL_CONFIG),
            PREFIX + "ModelStatistics": Unary(statistics, Scope.ANY, Api.STATISTICS),
            PREFIX + "RepositoryIndex": Unary(index, Scope.ANY, Api.MODEL_REPOSITORY),
            PREFIX + "RepositoryModelLoad": Unary(self._load, Scope.ADMIN, Api.MODEL_REPOSITORY),
            PREFIX + "RepositoryModelUnload": Unary(
                self._unload, Scope.ADMIN, Api.MODEL_REPOSITORY
            ),
            PREFIX + "TraceSetting": Unary(trace, Scope.ADMIN, Api.TRACE),
            PREFIX + "LogSettings": Unary(log_settings, Scope.ADMIN, Api.LOGGING),
            **self._regions.rows(PREFIX),
            **ReleaseRpcs(self.core).rows(),
        }

    # -- inference -----------------------------------------------------------------------------

    def _infer(self, call: Call, message: Buffer) -> None:
        try:
            decoded = self.decoder.decode(message)
            request = decoded.request
            if self._forwarding is not None:
                request = self._forwarding.added(request, call.metadata.items())
            if self.core.tracing.tracer is not None:
                note_arrival(call)
            client = MetadataClient(call)
            admitted = resolved(self.core, request, call, client)
            if admitted.model.signature.decoupled:
                raise Unsupported(
                    "ModelInfer RPC doesn't support models with decoupled transaction policy"
                )
        except ServingError as error:
            call.fail(code_of(error), error.message)
            return
        residence = residence_of(self.core, decoded.wishes) if decoded.wishes else ON_HOST
        context = RequestContext(CancelToken(), call.deadline, (), residence, client=client)
        call.on_cancel(context.cancel.cancel)
        self.core.infer(admitted, request, context, UnarySink(self, call, admitted, decoded))

    def _open_stream(self, call: Call) -> InferStream:
        return InferStream(self.core, self.decoder, self.encoder, call, self._forwarding)

    # -- health and metadata -------------------------------------------------------------------

    def _server_live(self, _: pb.ServerLiveRequest) -> Message:
        return pb.ServerLiveResponse(live=self.core.is_live())

    def _server_ready(self, _: pb.ServerReadyRequest) -> Message:
        return pb.ServerReadyResponse(ready=self.core.is_ready())

    def _model_ready(self, request: pb.ModelReadyRequest) -> Message:
        version = parse_version(request.version)
        return pb.ModelReadyResponse(ready=self.core.is_model_ready(request.name, version))

    def _health(self, request: health_pb2.HealthCheckRequest) -> Message:
        name = request.service
        is_ready = self.core.is_model_ready(name, None) if name else self.core.is_ready()
        statuses = health_pb2.HealthCheckResponse
        return statuses(status=statuses.SERVING if is_ready else statuses.NOT_SERVING)

    def _server_metadata(self, _: pb.ServerMetadataRequest) -> Message:
        return self.core.server_metadata()

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> Message:
        return self.core.model_metadata(request.name, parse_version(request.version))

    def _model_config(self, request: pb.ModelConfigRequest) -> Message:
        config = self.core.model_config(request.name, parse_version(request.version))
        return pb.ModelConfigResponse(config=config)

    def _statistics(self, request: pb.ModelStatisticsRequest) -> Message:
        return self.core.statistics(request.name, parse_version(request.version))

    # -- repository ----------------------------------------------------------------------------

    def _index(self, request: pb.RepositoryIndexRequest) -> Message:
        refuse_repository_name(request.repository_name)
        index = pb.RepositoryIndexResponse()
        for row in self.core.index(ready_only=request.ready):
            index.models.add(name=row.name, version=row.version, state=row.state, reason=row.reason)
        return index

    def _load(self, call: Call, message: Buffer) -> None:
        async def load() -> Message:
            request = parse(pb.RepositoryModelLoadRequest, message)
            refuse_repository_name(request.repository_name)
            name = request.model_name
            values = ((key, _value(given)) for key, given in request.parameters.items())
            given = read_load(name, values, bytes)
            await self.core.load(name, given.config_json, given.files)
            return pb.RepositoryModelLoadResponse()

        self._spawn(call, load())

    def _unload(self, call: Call, message: Buffer) -> None:
        async def unload() -> Message:
            request = parse(pb.RepositoryModelUnloadRequest, message)
            refuse_repository_name(request.repository_name)
            dependents = request.parameters["unload_dependents"].bool_param
            await self.core.unload(request.model_name, unload_dependents=dependents)
            return pb.RepositoryModelUnloadResponse()

        self._spawn(call, unload())

    def _spawn(self, call: Call, work: Awaitable[Message]) -> None:
        async def run() -> None:
            try:
                answer = await work
            except ServingError as error:
                call.fail(code_of(error), error.message)
            except Exception:
                log.exception("an RPC failed")
                call.fail(Code.INTERNAL, INTERNAL_TEXT)
            else:
                call.answer([answer.SerializeToString()])

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- settings ------------------------------------------------------------------------------

    def _trace_setting(self, request: pb.TraceSettingRequest) -> Message:
        return answer_trace_setting(self.core, request)

    def _log_settings(self, request: pb.LogSettingsRequest) -> Message:
        return answer_log_settings(self.core, request)

"""A core that echoes, behind a real HTTP server on loopback, and a client for it."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
from heard import hear, hear_bytes
from made_models import made_model
from patience import patience

from trivet.backends.api import (
    CheckedRequest,
    Client,
    DataType,
    Generator,
    InferRequest,
    InferResponse,
    InvalidRequest,
    Measured,
    ModelNotFound,
    PrefixCaching,
    RequestContext,
    Signature,
    Sink,
    TensorSpec,
)
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.backends.device.nvml import Gpus
from trivet.protos import grpc_service_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.console.room import ConsoleRoom
from trivet.server.core import Payer, Served
from trivet.server.http.app import HttpLimits, HttpServer, build_routes
from trivet.server.http.language import Language
from trivet.server.http.routes import Route
from trivet.server.logs.setting import LogSetting, LogValue
from trivet.server.models.check import submit
from trivet.server.models.known import IndexRow
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.routing import NOBODY, Admitted, Key, VersionRouter
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.shared_memory.system import SharedMemory
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described, Tracing

Respond = Callable[[CheckedRequest, Sink], None]


def spec(name: str, datatype: DataType, *dims: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, datatype, dims, dims, optional=optional)


def signature(*inputs: TensorSpec, max_batch_size: int = 0, decoupled: bool = False) -> Signature:
    outputs = [
        TensorSpec(s.name.replace("INPUT", "OUTPUT"), s.datatype, s.dims, s.model_dims)
        for s in inputs
    ]
    return Signature(
        {s.name: s for s in inputs}, {s.name: s for s in outputs}, max_batch_size, decoupled
    )


def echo(request: CheckedRequest, sink: Sink) -> None:
    """Each INPUTn comes back as OUTPUTn, with the request's parameters."""
    outputs = [
        tensor.renamed(tensor.name.replace("INPUT", "OUTPUT"), tensor.shape)
        for tensor in request.inputs.values()
    ]
    wanted = request.output_names
    chosen = [tensor for tensor in outputs if not wanted or tensor.name in wanted]
    version = request.model_version
    parameters = request.parameters
    sink.send(
        InferResponse(request.model_name, version, request.id, chosen, parameters), final=True
    )


class RecordingExecutor:
    """An Executor that answers as a test says, and notes what it was given."""

    def __init__(self, requests: list[CheckedRequest], respond: Respond) -> None:
        self._requests = requests
        self._respond = respond

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        self._requests.append(request)
        self._respond(request, sink)

    async def drain(self) -> None:
        """Has nothing under way."""

    async def close(self) -> None:
        """Owns nothing."""

    def is_ready(self) -> bool:
        return True


class NobodySleeps:
    """None of the models has memory to give back."""

    def chosen(self, name: str) -> list[str]:
        return [name]

    def is_sleeping(self, keys: Collection[str]) -> bool:
        return False

    async def sleep(self, keys: Collection[str]) -> None: ...

    async def wake_up(self, keys: Collection[str], tags: Sequence[str]) -> None: ...

    def residents(self) -> Sequence[Any]:
        return ()


class FakeCore:
    """The core's interface over models that answer as a test says; records what reached it."""

    def __init__(self, models: Mapping[str, Generator] | None = None) -> None:
        """`models` are those that generate text."""
        self.models = dict(models or {})
        self.log_setting = LogSetting()
        self.tracing = Tracing()
        fp32 = DataType.FP32
        self.signatures = {
            "simple": signature(
                spec("INPUT0", fp32, 16), spec("INPUT1", fp32, 16), max_batch_size=8
            ),
            "ident": signature(spec("INPUT0", fp32, -1)),
            "two": signature(spec("INPUT0", fp32, -1), spec("INPUT1", fp32, -1)),
            "ident_2d": signature(spec("INPUT0", fp32, -1, -1)),
            "ident_str": signature(spec("INPUT0", DataType.BYTES, -1)),
            "one_str": signature(spec("INPUT0", DataType.BYTES, 1), max_batch_size=4),
            "opt": signature(
                spec("INPUT0", fp32, 1),
                spec("INPUT1", fp32, 1),
                spec("INPUT2", fp32, 1),
            ),
            "llm": signature(
                spec("text_input", DataType.BYTES, 1),
                spec("weights", fp32, -1, optional=True),
                decoupled=True,
            ),
        }
        for datatype in DataType:
            name = f"ident_{datatype.value.lower()}"
            self.signatures[name] = signature(spec("INPUT0", datatype, -1))
        self.responses: dict[str, Respond] = {}
        self.requests: list[CheckedRequest] = []
        self.shared_memory = SharedMemory(enabled=True)
        self.releases = ReleaseDesk.alone(Registry())
        self.sleeping: Any = NobodySleeps()
        self.ready = True
        self.stopping = False
        self.control: list[tuple[object, ...]] = []

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        if name not in self.signatures:
            raise ModelNotFound(f"Request for unknown model: '{name}' is not found")
        model = made_model(
            name,
            self.signatures[name],
            RecordingExecutor(self.requests, self.responses.get(name, echo)),
            config=self._config(name),
            labels={"OUTPUT0": ("zero", "one")},
        )
        return VersionRouter({1: model}).choose(version, key)

    def account(self) -> Payer | None:
        return None

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        submit(admitted.model, request, context, sink)

    def generator(
        self, name: str, version: int | str | None = None, key: Key = "", asker: Client = NOBODY
    ) -> tuple[Generator, dict[str, str]]:
        if name not in self.models:
            raise ModelNotFound(f"The model `{name}` does not exist.")
        return self.models[name], {}

    def generators(self) -> dict[str, Generator]:
        return dict(self.models)

    def unnamed_generators(self) -> list[str]:
        return list(self.models)

    def encoders(self) -> dict[str, EncoderInfo]:
        return {}

    def image_classifiers(self) -> dict[str, ImageClassifierInfo]:
        return {}

    def is_generating(self) -> bool:
        return True

    def all_statistics(self) -> Iterable[ModelStatistics]:
        return ()

    def loaded(self) -> Iterable[Model]:
        return ()

    def measured(self) -> dict[Served, Measured]:
        return {}

    def prefix_caches(self) -> Iterable[tuple[str, PrefixCaching]]:
        return [
            (name, each) for name, each in self.models.items() if isinstance(each, PrefixCaching)
        ]

    def trace_settings(self, name: str = "") -> Described:
        if name:
            self.resolve(name, None)
        return self.tracing.describe(name)

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        if name:
            self.resolve(name, None)
        self.tracing.update(changes, name)
        return self.tracing.describe(name)

    def log_settings(self) -> dict[str, LogValue]:
        return self.log_setting.describe()

    def change_log_settings(self, changes: Mapping[str, object]) -> dict[str, LogValue]:
        self.log_setting = self.log_setting.changed(changes)
        return self.log_setting.describe()

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.ready and not self.stopping

    def is_stopping(self) -> bool:
        return self.stopping

    def is_model_ready(self, name: str, version: int | str | None) -> bool:
        return name in self.signatures

    def server_metadata(self) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="trivet", version="1.2", extensions=["a", "b"])

    def model_metadata(self, name: str, version: int | str | None) -> pb.ModelMetadataResponse:
        sig = self.resolve(name, version).model.signature
        metadata = pb.ModelMetadataResponse(name=name, versions=["1"], platform="fake")
        for each in sig.inputs.values():
            metadata.inputs.add(
                name=each.name, datatype=each.datatype.value, shape=sig.full_dims(each)
            )
        return metadata

    def model_config(self, name: str, version: int | str | None) -> ModelConfig:
        return self.resolve(name, version).model.config

    def _config(self, name: str) -> ModelConfig:
        sig = self.signatures[name]
        config = ModelConfig(name=name, max_batch_size=sig.max_batch_size)
        for each in sig.inputs.values():
            config.input.add(
                name=each.name, data_type=each.datatype.to_config(), dims=list(each.dims)
            )
        return config

    def statistics(
        self, name: str = "", version: int | str | None = None
    ) -> pb.ModelStatisticsResponse:
        names = [name] if name else list(self.signatures)
        stats = [pb.ModelStatistics(name=each, version="1", inference_count=3) for each in names]
        return pb.ModelStatisticsResponse(model_stats=stats)

    def index(self, *, ready_only: bool) -> list[IndexRow]:
        rows = [IndexRow("simple", "", "1", "READY")]
        if not ready_only:
            rows += [IndexRow("never", ""), IndexRow("broken", "", "1", "UNAVAILABLE", "why")]
        return rows

    async def load(
        self, name: str, config_json: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        self.control.append(("load", name, config_json, *([dict(files)] if files else ())))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        if name == "missing":
            raise InvalidRequest("no such model")
        self.control.append(("unload", name, unload_dependents))

    async def load_adapter(
        self, name: str, folder: str, base: str = "", *, in_place: bool = False
    ) -> None:
        self.control.append(("load_adapter", name, folder, base, in_place))

    async def unload_adapter(self, name: str, base: str = "") -> None:
        self.control.append(("unload_adapter", name, base))


def all_routes() -> tuple[Route, ...]:
    """Every row of the HTTP front room."""
    core = FakeCore()
    limits = HttpLimits()
    return build_routes(core, limits, Language(core, limits), console=console_room()).routes


def console_room() -> ConsoleRoom:
    """What the console shows, of a machine without GPUs; not started."""
    return ConsoleRoom(Gpus.none("there are none in tests"))


class Site:
    """A running server, and a client for it."""

    def __init__(self, core: FakeCore, server: HttpServer, port: int) -> None:
        self.core = core
        self.server = server
        self.port = port
        self.session = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            auto_decompress=False,
            trust_env=False,
            trace_configs=[listening()],
        )

    async def send_raw(self, data: bytes) -> bytes:
        """Everything that the server answers to some bytes until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(patience()):
            answer = await reader.read()
        writer.close()
        hear_bytes(answer, is_closed=True)
        return answer

    async def close(self) -> None:
        await self.session.close()
        await self.server.close()
        self.core.shared_memory.close()


def listening() -> aiohttp.TraceConfig:
    """Has a client's answers heard."""

    async def heard(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
        hear(ended.response.status, headers=ended.response.headers)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(heard)
    return config


async def open_site(
    core: FakeCore, limits: HttpLimits | None = None, console: ConsoleRoom | None = None
) -> Site:
    server = HttpServer(core, limits or HttpLimits(), "127.0.0.1", 0, console=console)
    return Site(core, server, await server.start())

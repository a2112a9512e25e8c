"""What front rooms may ask: the one door between them and the models.

Each part is what one kind of front room needs. `Hall` fulfils all of them, and so does
`GuardedCore`, for servers with keys. Called on the event loop only.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from trivet.backends.api import (
    Client,
    Generator,
    InferRequest,
    Measured,
    PrefixCaching,
    RequestContext,
    Sink,
)
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.protos import grpc_service_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.logs.setting import LogValue
from trivet.server.models.known import IndexRow
from trivet.server.models.model import Model
from trivet.server.models.routing import NOBODY, Admitted, Key
from trivet.server.models.sleeping.resident import Resident
from trivet.server.repository.upload import NO_FILES
from trivet.server.rollouts.arms import Arm
from trivet.server.scheduling.statistics import ModelStatistics
from trivet.server.shadows.mirror import Verdict
from trivet.server.shared_memory.system import SharedMemory
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described, Tracing


class Served(NamedTuple):
    """A model as metrics tell of it."""

    name: str
    version: str = ""
    """Empty where only one of its versions is loaded."""

    @property
    def labels(self) -> dict[str, str]:
        """Of metrics under others' names."""
        named = {"model_name": self.name}
        return {**named, "version": self.version} if self.version else named


COST_HEADER = "x-trivet-cost"
"""What a request cost, where requests have prices: answers say it, once it is known."""
Payer = Callable[[int], None]
"""Told how many tokens were read or written."""


class Resolving(Protocol):
    """Finds models."""

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        """The version of a model that a request gets: asked once, by whoever takes the request in.

        `key` is what the choice may stick to, unless `asker` has what is meant for that.
        Raises ModelNotFound, NotFound, ModelNotReady.
        """


class Inference(Resolving, Protocol):
    """Runs requests of tensors."""

    @property
    def shared_memory(self) -> SharedMemory:
        """The regions that clients have registered."""

    @property
    def tracing(self) -> Tracing:
        """Which requests are traced."""

    def account(self) -> Payer | None:
        """Lets in whoever asks a model in several requests for one of a client's, once for all: who
        pays for the tokens, to be handed on in their contexts. None: nobody. Raises RateLimited."""

    def infer(
        self, admitted: Admitted, request: InferRequest, context: RequestContext, sink: Sink
    ) -> None:
        """Runs a request on what `resolve` gave for it; every outcome goes to the sink, exactly one
        end. Never raises."""


class Generators(Protocol):
    """Finds models that generate text."""

    def generator(
        self,
        name: str,
        version: int | str | None = None,
        key: Key = "",
        asker: Client = NOBODY,
    ) -> tuple[Generator, Mapping[str, str]]:
        """A model that generates text, asked for once a request as `resolve` is, and what answers
        say of its version (see Admitted). Raises ModelNotFound, also for models of other kinds,
        NotFound, ModelNotReady."""

    def generators(self) -> dict[str, Generator]:
        """All models that generate text and are ready, by name: to list them, not to ask them."""

    def unnamed_generators(self) -> list[str]:
        """Those of them that a request which names no model may mean."""

    def is_generating(self) -> bool:
        """Whether the server is started and every model that generates text can be asked now."""


class Encoders(Protocol):
    """Finds models that read texts."""

    def encoders(self) -> dict[str, EncoderInfo]:
        """What those of them that are ready are, by name: to choose or list them."""


class ImageClassifiers(Protocol):
    """Finds models that label images."""

    def image_classifiers(self) -> dict[str, ImageClassifierInfo]:
        """What those of them that are ready are, by name: to choose them."""


class Readiness(Protocol):
    """Says who can be asked."""

    def is_live(self) -> bool:
        """Whether the process serves at all."""

    def is_stopping(self) -> bool:
        """Whether a shutdown has begun."""

    def is_ready(self) -> bool:
        """Whether requests can be sent: started, not stopping, and every known model serves."""

    def is_model_ready(self, name: str, version: int | str | None) -> bool:
        """Whether a version, or the newest, can compute now; False for what is not there."""


class Descriptions(Protocol):
    """Says what there is. What names a model may raise ModelNotFound, NotFound, ModelNotReady."""

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""

    def model_metadata(self, name: str, version: int | str | None) -> pb.ModelMetadataResponse:
        """A model's inputs and outputs; `versions` are all ready ones unless one was asked for."""

    def model_config(self, name: str, version: int | str | None) -> ModelConfig:
        """The full config of a version, after auto-completion."""

    def statistics(
        self, name: str = "", version: int | str | None = None
    ) -> pb.ModelStatisticsResponse:
        """Statistics of all ready versions, of a model's, or of one. Raises InvalidRequest."""

    def index(self, *, ready_only: bool) -> list[IndexRow]:
        """Every model of the repositories with the state of its versions."""


class Counters(Protocol):
    """What has happened, for the metrics page: of all models, whoever may use them."""

    def all_statistics(self) -> Iterable[ModelStatistics]:
        """The counters of every version that was ever ready."""

    def loaded(self) -> Iterable[Model]:
        """Every version that is loaded, whether it can compute now or not."""

    def measured(self) -> dict[Served, Measured]:
        """All models that generate text and count it, ready or not."""


class ServerSettings(Protocol):
    """What may be changed while the server runs."""

    def trace_settings(self, name: str = "") -> Described:
        """What is traced: of a model, or of those without settings of their own. Raises
        ModelNotFound, ModelNotReady."""

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        """Changes them and says what they are then. Raises also InvalidRequest, Unsupported."""

    def log_settings(self) -> dict[str, LogValue]:
        """What the log shows. Raises Unsupported where it is not the server's."""

    def change_log_settings(self, changes: Mapping[str, object]) -> dict[str, LogValue]:
        """Changes that and says what it is then. Raises also InvalidRequest."""


class ModelControl(Protocol):
    """Loads and unloads."""

    def prefix_caches(self) -> Iterable[tuple[str, PrefixCaching]]:
        """Every version of a model that keeps what prompts begin with, and the model's name."""

    async def load(
        self,
        name: str,
        config_json: str | None = None,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        """Loads or reloads a model of the repository; returns when it serves.

        `config_json` replaces its config file for this load, and `files` (VERSION/NAME to content)
        all others, where the server takes any. Raises Unavailable unless the control mode is
        explicit, LoadFailed when it fails (what served before goes on).
        """

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Takes a model out of service; returns when it accepts no more requests.

        `unload_dependents` also unloads the steps of an ensemble that were loaded for it alone.
        """


class AdapterControl(Protocol):
    """Loads and unloads what is made of a model while it serves."""

    async def load_adapter(
        self, name: str, folder: str, base: str = "", *, in_place: bool = False
    ) -> None:
        """Serves the adapter in a folder below the base's `adapters`, in every control mode;
        `base` may be empty where there is one, or where the name has it in front. Raises
        InvalidRequest, NotFound, LoadFailed."""

    async def unload_adapter(self, name: str, base: str = "") -> None:
        """Serves it no more, until its files change. Raises InvalidRequest, NotFound."""


class Sharing(Protocol):
    """Who gets which version of a model, and what came of it."""

    def traffic(self, name: str) -> dict[str, Any]:
        """Labels, split, and the figures of its arms. Raises ModelNotFound, NotFound,
        ModelNotReady, as all that name a model here."""

    def set_traffic(
        self, name: str, document: Mapping[str, Any] | None, by: str = "operator"
    ) -> dict[str, Any]:
        """Sets labels, split and sticky keys in the place of the model's file; None: the file
        counts again. Raises also InvalidRequest."""

    def model_of(self, request_id: str) -> str:
        """The model that answered a request which was shared out. Raises NotFound."""

    def report(self, request_id: str, name: str, value: float) -> None:
        """How such a request turned out. Raises InvalidRequest, NotFound."""

    def report_version(self, model: str, version: int | None, name: str, value: float) -> None:
        """How a version did, or the usual one, where no request is known. Raises InvalidRequest,
        ModelNotFound, NotFound, ModelNotReady."""

    def outcomes(self) -> list[dict[str, Any]]:
        """All that was reported: how often, and the mean, by model, version and name."""

    def arms(self) -> Iterable[tuple[str, Arm]]:
        """The parts of all splits, with their names: of all models, for the metrics page."""


class RollingOut(Protocol):
    """Versions that take the traffic step by step."""

    def rollouts(self) -> list[dict[str, Any]]:
        """Those that go on, and the last ones of other models."""

    def rollout(self, name: str) -> dict[str, Any]:
        """A model's. Raises as `Sharing.traffic`."""

    def rollout_history(self, name: str) -> list[dict[str, Any]]:
        """Who did what, and when: of one model, the oldest first. Raises alike."""

    def change_rollout(
        self, name: str, command: str, given: Mapping[str, Any], by: str = "operator"
    ) -> dict[str, Any]:
        """Starts, pauses, resumes, promotes or aborts one. Raises also InvalidRequest."""


class Shadowing(Protocol):
    """Versions that are asked beside."""

    def shadows(self) -> Iterable[tuple[str, int, Counter[Verdict]]]:
        """What became of the copies, by model and version: of all models, for the metrics page."""

    async def shadow_differences(self, name: str) -> list[bytes]:
        """The last differences of a model, each as JSON. Raises as `Sharing.traffic`."""


class Releases(Sharing, RollingOut, Shadowing, Protocol):
    """All of it."""


class Releasing(Protocol):
    """Has them."""

    @property
    def releases(self) -> Releases:
        """Of all models that the caller may use."""


class Sleeping(Protocol):
    """Models that give their memory back, and wake for a request."""

    def chosen(self, name: str) -> list[str]:
        """The keys of those that are meant: the one of that name, or all that generate text. Raises
        ModelNotFound, NotFound, ModelNotReady, and Unsupported for one that has no memory."""

    async def sleep(self, keys: Collection[str]) -> None:
        """Returns when all versions of them sleep. What has begun is answered first."""

    async def wake_up(self, keys: Collection[str], tags: Sequence[str]) -> None:
        """Returns when they are awake, once each of `weights` and `kv_cache` was asked for. Raises
        ModelNotReady."""

    def is_sleeping(self, keys: Collection[str]) -> bool:
        """Whether any version of them sleeps."""

    def residents(self) -> Iterable[Resident]:
        """All that have memory to give back, for the metrics page."""


class HasSleepers(Protocol):
    """Has them."""

    @property
    def sleeping(self) -> Sleeping:
        """Of all models that the caller may use."""


class Core(
    Inference,
    Generators,
    Encoders,
    ImageClassifiers,
    Readiness,
    Descriptions,
    Counters,
    ServerSettings,
    ModelControl,
    AdapterControl,
    Releasing,
    HasSleepers,
    Protocol,
):
    """All of it: what a whole protocol asks."""

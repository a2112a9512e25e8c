"""The interfaces that a backend implements and that the server calls."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from trivet.backends.api.batch import Batch
from trivet.backends.api.checked import CheckedRequest
from trivet.backends.api.environment import Environment, Recipe
from trivet.backends.api.files import ModelFiles, Placement
from trivet.backends.api.sink import Sink
from trivet.protos.model_config_pb2 import ModelConfig

if TYPE_CHECKING:  # instance processes have no event loop
    from asyncio import AbstractEventLoop


class Instance(Protocol):
    """One loaded copy of a model on one device. Only its own thread calls it (see ComputeOnly)."""

    def execute(self, batch: Batch) -> None:
        """Computes the batch: `batch.scatter` or `batch.respond` for the outputs.

        Raising fails the whole batch: a ServingError with its own text, anything else as
        BackendFailed with a fixed text (the exception goes to the log). A decoupled model answers
        through `batch.senders`, now or after this call has returned.
        """

    def is_ready(self) -> bool:
        """Whether it can compute now; called on the event loop, so it must not block."""

    def close(self) -> None:
        """Frees what it holds. No `execute` follows."""


class ComputeOnly:
    """Base of instances whose `execute` only computes: it waits for nothing and runs no code of the
    model's author. An executor may call such an instance on the event loop while that has shown
    itself cheaper than handing the batch to a thread; still one call at a time."""

    __slots__ = ()


@runtime_checkable
class ComputesElsewhere(Protocol):
    """An instance that leaves computing to another process: no thread need wait for that."""

    def begin(
        self, batch: Batch, loop: "AbstractEventLoop", replied: Callable[[bool], None]
    ) -> bool:
        """Hands a batch on. Called on the event loop, so it must not block. False: nothing has
        begun, and a thread is to call `execute`.

        After True `replied` is called once, on the loop, and then `execute` with this batch: right
        there where it was called with True, for that will not wait; by a thread if with False.
        """


class Executor(Protocol):
    """Takes single requests and decides when, and with whom, they run. Called on the event loop."""

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """Never blocks and never raises: every outcome goes to the sink, exactly one end."""

    async def drain(self) -> None:
        """Takes no new request and returns when every submitted one has ended."""

    async def close(self) -> None:
        """Ends what is left with an error and frees the instances."""

    def is_ready(self) -> bool:
        """Whether a request submitted now could be computed."""


@runtime_checkable
class BringsExecutor(Protocol):
    """An instance that decides itself when to run what, such as an LLM engine."""

    def make_executor(self) -> Executor:
        """Called once, on the event loop; the executor owns the instance from then on."""


@runtime_checkable
class CostsByLength(Protocol):
    """An instance whose requests are as long as their texts are. Those of a batch are made as long
    as the longest, so that a batch costs its rows times that; who batches joins what is alike."""

    @property
    def length_budget(self) -> int:
        """How many rows times longest there should be in a batch: more is not faster."""

    def length_of(self, request: CheckedRequest) -> int:
        """About how long the longest row of a request is. Called on the event loop, so it must not
        look closely."""


class Backend(Protocol):
    """Opens models of one kind. Which those are is in its `About`; see `about.py`."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """A copy of the config with what the model file itself says filled in, given fields checked
        against it. Runs in a worker thread. Raises InvalidConfig."""

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Loads one instance. Runs in a worker thread. Raises LoadFailed."""


@runtime_checkable
class StartsProcesses(Protocol):
    """A backend that itself puts instances into processes of their own."""

    def starts_processes(self, config: ModelConfig) -> bool:
        """Whether it does for this config. Such an instance can be placed on a device by UUID."""


@runtime_checkable
class ChecksFiles(Protocol):
    """A backend that can refuse some files, or a config that does not fit them, without the device,
    process or code that its `complete` and `open` may need."""

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """Raises the ServingError that `complete` or `open` raises for them."""


@runtime_checkable
class WantsEnvironment(Protocol):
    """A backend whose models may bring an environment, or name one."""

    def environment(self, config: ModelConfig, files: ModelFiles) -> Environment | Recipe | None:
        """One that is there, or how to make it; None for the server's own. `complete` and `open`
        find it in their files. Raises LoadFailed, InvalidConfig, OSError."""


@runtime_checkable
class ReportsMemory(Protocol):
    """An instance that knows what memory it takes; see `Measure.REPORT`."""

    def memory_bytes(self) -> Mapping[int | None, int]:
        """Since it was opened: by GPU number, and under None that of the host."""


@runtime_checkable
class UsesGpus(Protocol):
    """A backend whose instances may be placed on GPUs."""

    def can_use_gpus(self) -> bool:
        """Whether its framework, as it is installed, computes on them: KIND_AUTO then means one
        instance on each GPU, else the CPU."""


@runtime_checkable
class KnowsPlacement(Protocol):
    """A backend whose configs say what depends on where instances run."""

    def placed(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """The complete config with that, once its instance groups are settled."""

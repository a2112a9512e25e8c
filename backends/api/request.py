"""What a client asked and what a model answered. Built once by a front room, then only read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trivet.backends.api.device import Residence
from trivet.backends.api.tensor import Tensor
from trivet.backends.api.window import Window

if TYPE_CHECKING:
    from trivet.backends.api.trace import Trace

ParameterValue = bool | int | float | str
Parameters = Mapping[str, ParameterValue]
NO_PARAMETERS: Parameters = {}
NO_LABELS: Mapping[str, Sequence[str]] = {}
ON_HOST: Mapping[str, Residence] = {}


class CancelToken:
    """Says that nobody waits for a request any more.

    Owned by the front room. `cancel` is called on the event loop; `cancelled` may be read from any
    thread.
    """

    __slots__ = ("_callbacks", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        self._callbacks: list[Callable[[], None]] | None = None

    def cancel(self) -> None:
        """Sets the flag and calls the callbacks; a second call does nothing."""
        if self.cancelled:
            return
        self.cancelled = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls `callback` on the event loop when cancelled, at once if it has happened."""
        if self.cancelled:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)


# Not frozen: a frozen dataclass costs a microsecond more per request. Nobody writes to one after
# the front room has built it.
@dataclass(slots=True)
class InferRequest:
    """One inference request, as asked: nothing in it says where it is now.

    `model_version` is a number, a label, or None: the server chooses. `inputs` are in the client's
    order. `output_names` empty means all outputs. `deadline` is in seconds of `time.monotonic`;
    `timeout_us` (0: none) and `priority` (0: default) are the v2 request parameters of that name.
    """

    model_name: str
    model_version: int | str | None
    id: str
    inputs: dict[str, Tensor]
    output_names: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    deadline: float | None = None
    cancel: CancelToken = field(default_factory=CancelToken)
    batch_size: int = 1
    """Leading dimension of the inputs, 1 if the model does not batch; set by the core's check."""
    batching: bool = False
    """Whether the tensors have a batch dimension; set by the core."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=lambda: NO_LABELS)
    """Class labels by output; set by the core. The model may be gone when its answer is written."""
    callers: tuple[str, ...] = ()
    """The models on whose behalf it is asked, the first one first; empty for a client's request."""
    residence: Mapping[str, Residence] = field(default_factory=lambda: ON_HOST)
    """Where outputs are wanted; on the host if it does not say."""
    on_tokens: Callable[[int], None] | None = None
    """Language models tell it how many tokens they have read or written. On the event loop."""
    tenant: str = ""
    """Whose it is: answers and prefixes that are kept are shared among requests of one tenant."""
    trace: "Trace | None" = None
    """Where it is traced: the part of the model that asks, and of its own model from there on."""
    window: Window | None = None
    """How many responses of a decoupled model whoever asks can hold; None: any number."""

    @property
    def key(self) -> int | str:
        """What the choice of a version may stick to: the sequence, or else the request itself."""
        return self.sequence_id or self.id


@dataclass(slots=True)
class InferResponse:
    """One response of a model to a request."""

    model_name: str
    model_version: int
    id: str
    outputs: list[Tensor]
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)

"""What is asked, one asking of it, what a model is given, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trivet.backends.api.device import Residence
from trivet.backends.api.tensor import Tensor
from trivet.backends.api.value import value
from trivet.backends.api.window import Window

if TYPE_CHECKING:
    from trivet.backends.api.trace import Trace

ParameterValue = bool | int | float | str
Parameters = Mapping[str, ParameterValue]
NO_PARAMETERS: Parameters = {}
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


@value
class InferRequest:
    """What is asked, and nothing of who asks, until when, or what became of it: one object may be
    asked of several models, or versions, at the same time.

    `model_version` is a number, a label, or None: the server chooses. `inputs` are in the client's
    order. `output_names` empty means all outputs. `timeout_us` (0: none) and `priority` (0:
    default) are the v2 request parameters of that name.
    """

    model_name: str
    model_version: int | str | None
    id: str
    inputs: Mapping[str, Tensor]
    output_names: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)
    priority: int = 0
    timeout_us: int = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False

    @property
    def key(self) -> int | str:
        """What the choice of a version may stick to: the sequence, or else the request itself."""
        return self.sequence_id or self.id


@value
class RequestContext:
    """One asking of a request: who waits for it, until when, and on whose behalf.

    `deadline` is in seconds of `time.monotonic`.
    """

    cancel: CancelToken = field(default_factory=CancelToken)
    deadline: float | None = None
    callers: tuple[str, ...] = ()
    """The models on whose behalf it is asked, the first one first; empty for a client's request."""
    residence: Mapping[str, Residence] = field(default_factory=lambda: ON_HOST)
    """Where outputs are wanted; on the host if it does not say."""
    on_tokens: Callable[[int], None] | None = None
    """Language models tell it how many tokens they have read or written. On the event loop."""
    tenant: str = ""
    """Whose it is: answers and prefixes that are kept are shared among requests of one tenant."""
    trace: "Trace | None" = None
    """Where it is traced: the part of whoever asks."""
    window: Window | None = None
    """How many responses of a decoupled model whoever asks can hold; None: any number."""


@value
class CheckedRequest:
    """A request on its way through a model that it fits: what executors and instances take.

    Fields have the names, and the meaning, that they have in `InferRequest` and `RequestContext`.
    """

    model_name: str
    model_version: int
    """The one that was chosen."""
    id: str
    inputs: Mapping[str, Tensor]
    """In the model's shapes."""
    output_names: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)
    priority: int = 0
    timeout_us: int = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    batch_size: int = 1
    """Leading dimension of the inputs, 1 if the model does not batch."""
    cancel: CancelToken = field(default_factory=CancelToken)
    deadline: float | None = None
    callers: tuple[str, ...] = ()
    residence: Mapping[str, Residence] = field(default_factory=lambda: ON_HOST)
    on_tokens: Callable[[int], None] | None = None
    tenant: str = ""
    trace: "Trace | None" = None
    """The model's own part."""
    window: Window | None = None


@dataclass(slots=True)
class InferResponse:
    """One response of a model to a request."""

    model_name: str
    model_version: int
    id: str
    outputs: list[Tensor]
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)

"""What is asked of a model, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import field

from trivet.backends.api.device import Residence
from trivet.backends.api.tensor import Tensor
from trivet.backends.api.value import record, value

ParameterValue = bool | int | float | str
Parameters = Mapping[str, ParameterValue]
NO_PARAMETERS: Parameters = {}
ON_HOST: Mapping[str, Residence] = {}


@record
class CancelToken:
    """Says that nobody waits for a request any more.

    Owned by the front room. `cancel` is called on the event loop; `cancelled` may be read from any
    thread.
    """

    cancelled: bool = False
    _callbacks: list[Callable[[], None]] | None = None

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


@record
class InferResponse:
    """One response of a model to a request."""

    model_name: str
    model_version: int
    id: str
    outputs: list[Tensor]
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)

    @property
    def size_bytes(self) -> int:
        """Of all outputs."""
        size_bytes = 0
        for tensor in self.outputs:
            size_bytes += tensor.nbytes
        return size_bytes

"""One asking of a request, and what a model is given of it."""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Protocol

from trivet.backends.api.device import Residence
from trivet.backends.api.request import NO_PARAMETERS, ON_HOST, CancelToken, Parameters
from trivet.backends.api.tensor import Tensor
from trivet.backends.api.trace import Trace
from trivet.backends.api.value import value
from trivet.backends.api.window import Window


class Client(Protocol):
    """Who asked first, as far as the choice of a version goes by it."""

    def given(self, source: str) -> str | None:
        """What its request has at a place that a model's traffic sticks to; None: nothing."""


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
    """Models that read or write tokens tell it how many. On the event loop."""
    tenant: str = ""
    """Whose it is: answers and prefixes that are kept are shared among requests of one tenant."""
    trace: Trace | None = None
    """Where it is traced: the part of whoever asks."""
    window: Window | None = None
    """How many responses of a decoupled model whoever asks can hold; None: any number."""
    client: Client | None = None
    """Who asked first; None where nobody did, or several at once."""


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
    trace: Trace | None = None
    """The model's own part."""
    window: Window | None = None
    client: Client | None = None

"""How a model asks other models of the same server: ensembles and Python models do.

No codecs lie between: tensors are handed on as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from trivet.backends.api.backend import Backend
from trivet.backends.api.generate import Generator
from trivet.backends.api.request import CancelToken, InferRequest, Parameters
from trivet.backends.api.signature import Signature
from trivet.backends.api.sink import Sink
from trivet.backends.api.tensor import Tensor
from trivet.protos.model_config_pb2 import ModelConfig

MAX_DEPTH = 16
"""Models that may ask each other in a chain."""


class ModelServer(Protocol):
    """The server, as its models see it. Called on the event loop only."""

    def infer(self, request: InferRequest, sink: Sink) -> None:
        """Runs a request on its model: never blocks, never raises, exactly one end to the sink.

        Make the request with `derive`. One whose `callers` name its model, or are more than
        MAX_DEPTH, fails: a model that waits for itself would wait for ever.
        """

    def signature(self, name: str, version: int | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""

    def is_ready(self, name: str, version: int | None) -> bool:
        """Whether a version, or the newest, can compute now; False for what is not there."""

    def generator(self, name: str, version: int | None) -> Generator | None:
        """A model as one that generates text; None for one that does not. Raises as `signature`
        does."""

    async def load(self, name: str, config_json: str | None = None) -> None:
        """Loads or reloads a model. Raises Unavailable unless the control mode is explicit."""

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Takes a model out of service. Raises Unavailable unless the control mode is explicit."""


class Asker(Protocol):
    """The server, as models see it that run outside of its event loop. Any thread may call.

    Sinks are called on a thread of the asker's, which they must not hold up.
    """

    @property
    def owns_process(self) -> bool:
        """Whether it is the only one in its process, so that all threads there are its model's."""

    def infer(self, request: InferRequest, parents: Sequence[InferRequest], sink: Sink) -> None:
        """As `ModelServer.infer`; the request ends at its deadline, too. Make it with
        `derive_joint`: it is cancelled once nobody waits for any of `parents`."""

    def cancel(self, request: InferRequest) -> None:
        """Nobody waits for the answers to this request any more."""

    def give_room(self, request: InferRequest, num_responses: int) -> None:
        """So many more of a request's responses have been dealt with; see Window."""

    def is_ready(self, name: str, version: int | None) -> "Future[bool]":
        """See ModelServer."""

    def load(self, name: str, config_json: str | None) -> "Future[None]":
        """See ModelServer."""

    def unload(self, name: str, *, unload_dependents: bool) -> "Future[None]":
        """See ModelServer."""


class Catalog(Protocol):
    """The models that serve, as one that is being loaded sees them. Called from any thread."""

    def signature(self, name: str, version: int | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""

    def labels(self, name: str, version: int | None) -> Mapping[str, Sequence[str]]:
        """Class labels by output name. Raises as `signature` does."""

    def parts(self, name: str) -> frozenset[str]:
        """The model and, if it is made of others, these and whatever they are made of."""


class ComposedBackend(Backend, Protocol):
    """A backend whose models are made of others."""

    def labels(self, config: ModelConfig) -> Mapping[str, Sequence[str]]:
        """Class labels that outputs have from the models which make them."""


@runtime_checkable
class Composes(Protocol):
    """A backend whose models are made of others, before it is told which ones serve."""

    def composed(self, catalog: Catalog) -> ComposedBackend:
        """The backend, over the models that serve."""


@runtime_checkable
class AsksModels(Protocol):
    """An instance that asks other models."""

    def connect(self, server: ModelServer) -> None:
        """Called once, on the event loop, before anything else is asked of the instance."""


@runtime_checkable
class AsksFromThreads(Protocol):
    """An instance whose model asks others from whichever thread it computes in."""

    def ask_through(self, asker: Asker) -> None:
        """Called once, before anything else is asked of the instance."""


def derive(
    parent: InferRequest,
    model_name: str,
    model_version: int | None,
    inputs: dict[str, Tensor],
    *,
    output_names: tuple[str, ...] = (),
    parameters: Parameters | None = None,
) -> InferRequest:
    """A request to another model on behalf of `parent`, whose model is its caller.

    Id, priority, time-out, sequence, deadline, cancellation, tenant and who pays for tokens are the
    parent's: who cancels the parent cancels this one too.
    """
    return InferRequest(
        model_name,
        model_version,
        parent.id,
        inputs,
        output_names,
        parent.parameters if parameters is None else parameters,
        parent.priority,
        parent.timeout_us,
        parent.sequence_id,
        parent.sequence_start,
        parent.sequence_end,
        parent.deadline,
        parent.cancel,
        callers=(*parent.callers, parent.model_name),
        on_tokens=parent.on_tokens,
        tenant=parent.tenant,
        trace=parent.trace,
    )


def derive_joint(
    parents: Sequence[InferRequest],
    caller: str,
    model_name: str,
    model_version: int | None,
    inputs: dict[str, Tensor],
) -> InferRequest:
    """A request to another model on behalf of several, computed as one batch by model `caller`.

    It has a cancel token of its own. Deadline: the last of theirs, none if one of them has none.
    Tokens are charged in equal parts; what is kept for several tenants is nobody else's.
    """
    deadlines = [parent.deadline for parent in parents]
    known = [deadline for deadline in deadlines if deadline is not None]
    callers = dict.fromkeys(name for parent in parents for name in parent.callers)
    request = InferRequest(
        model_name,
        model_version,
        "",
        inputs,
        priority=min((parent.priority for parent in parents if parent.priority), default=0),
        deadline=max(known) if known and len(known) == len(deadlines) else None,
        callers=(*callers, caller),
    )
    put_on_account(request, parents)
    return request


def put_on_account(request: InferRequest, parents: Sequence[InferRequest]) -> None:
    """Makes a request that is asked on behalf of `parents` theirs: as `derive_joint` has it, and as
    the process that asks cannot know."""
    request.on_tokens = _shared([parent.on_tokens for parent in parents])
    request.tenant = "\n".join(sorted({parent.tenant for parent in parents}))


def _shared(payers: Sequence[Callable[[int], None] | None]) -> Callable[[int], None] | None:
    """Charges each that pays for its tokens with its part, rounded up."""
    paying = [payer for payer in payers if payer is not None]
    if not paying:
        return None

    def charge(num_tokens: int) -> None:
        for payer in paying:
            payer(-(-num_tokens // len(payers)))

    return charge


def cancel_with_all(token: CancelToken, parents: Sequence[CancelToken]) -> None:
    """Cancels the token once all parents are; never for no parents."""

    def check() -> None:
        if all(parent.cancelled for parent in parents):
            token.cancel()

    for parent in parents:
        parent.on_cancel(check)

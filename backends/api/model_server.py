"""How a model asks other models of the same server: ensembles and Python models do.

No codecs lie between: tensors are handed on as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from trivet.backends.api.backend import Backend
from trivet.backends.api.checked import CheckedRequest, Client, RequestContext
from trivet.backends.api.device import Residence
from trivet.backends.api.generate import Generator
from trivet.backends.api.request import ON_HOST, CancelToken, InferRequest
from trivet.backends.api.signature import Signature
from trivet.backends.api.sink import Sink
from trivet.backends.api.tensor import Tensor
from trivet.backends.api.window import Window
from trivet.protos.model_config_pb2 import ModelConfig

MAX_DEPTH = 16
"""Models that may ask each other in a chain."""


class ModelServer(Protocol):
    """The server, as its models see it. Called on the event loop only."""

    def infer(self, request: InferRequest, context: RequestContext, sink: Sink) -> None:
        """Runs a request on its model: never blocks, never raises, exactly one end to the sink.

        Make the request with `derive` and the context with `inherited`. One whose `callers` name
        its model, or are more than MAX_DEPTH, fails: a model that waits for itself would wait for
        ever.
        """

    def signature(self, name: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""

    def is_ready(self, name: str, version: int | str | None) -> bool:
        """Whether a version, or the newest, can compute now; False for what is not there."""

    def is_shared_out(self, name: str) -> bool:
        """Whether requests that name a model, as the catalog finds it, may get different versions
        of it: then they are not to be joined before."""

    def generator(
        self,
        name: str,
        version: int | str | None,
        key: int | str = "",
        client: Client | None = None,
    ) -> Generator | None:
        """A model as one that generates text, in the version that a request of this key and client
        gets; None for one that does not. Raises as `signature` does."""

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

    def infer(
        self,
        request: InferRequest,
        context: RequestContext,
        parents: Sequence[CheckedRequest],
        sink: Sink,
    ) -> None:
        """As `ModelServer.infer`; the request ends at its deadline, too. Its context is
        `inherited_jointly`: it is cancelled once nobody waits for any of `parents`."""

    def cancel(self, context: RequestContext) -> None:
        """Nobody waits for the answers to the request of this context any more."""

    def give_room(self, context: RequestContext, num_responses: int) -> None:
        """So many more of a request's responses have been dealt with; see Window."""

    def is_ready(self, name: str, version: int | None) -> "Future[bool]":
        """See ModelServer."""

    def load(self, name: str, config_json: str | None) -> "Future[None]":
        """See ModelServer."""

    def unload(self, name: str, *, unload_dependents: bool) -> "Future[None]":
        """See ModelServer."""


class Catalog(Protocol):
    """The models that serve, as one that is being loaded sees them. Called from any thread."""

    def find(self, name: str, namespace: str = "") -> str:
        """What a model that is named is known by, which every other question takes; its name
        without namespaces. With them, the one in the repository of the model that is being loaded
        comes first, then the one in `namespace`, then the only one. Raises InvalidRequest for a
        name that several models bear."""

    def signature(self, name: str, version: int | str | None) -> Signature:
        """What a model takes and gives. Raises ModelNotFound, NotFound, ModelNotReady."""

    def labels(self, name: str, version: int | str | None) -> Mapping[str, Sequence[str]]:
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
    parent: CheckedRequest,
    model_name: str,
    model_version: int | str | None,
    inputs: Mapping[str, Tensor],
    *,
    output_names: tuple[str, ...] = (),
) -> InferRequest:
    """A request to another model on behalf of `parent`: id, parameters, priority, time-out and
    sequence are the parent's. Its context is `inherited`."""
    return InferRequest(
        model_name,
        model_version,
        parent.id,
        inputs,
        output_names,
        parent.parameters,
        parent.priority,
        parent.timeout_us,
        parent.sequence_id,
        parent.sequence_start,
        parent.sequence_end,
    )


def inherited(
    parent: CheckedRequest,
    cancel: CancelToken | None = None,
    residence: Mapping[str, Residence] = ON_HOST,
    window: Window | None = None,
) -> RequestContext:
    """The context of a request on behalf of `parent`, whose model is its caller.

    Deadline, tenant and who pays for tokens are the parent's, and so is the cancellation unless
    there is a token of its own.
    """
    return RequestContext(
        cancel or parent.cancel,
        parent.deadline,
        (*parent.callers, parent.model_name),
        residence,
        parent.on_tokens,
        parent.tenant,
        parent.trace,
        window,
        parent.client,
    )


def joint_priority(parents: Sequence[CheckedRequest]) -> int:
    """Of a request to another model on behalf of several, computed as one batch: their highest. Its
    context is `inherited_jointly`."""
    return min((parent.priority for parent in parents if parent.priority), default=0)


def inherited_jointly(
    parents: Sequence[CheckedRequest], caller: str, window: Window | None = None
) -> RequestContext:
    """The context of a request on behalf of several that model `caller` computes as one batch.

    It has a cancel token of its own. Deadline: the last of theirs, none if one of them has none.
    Tokens are charged in equal parts; what is kept for several tenants is nobody else's.
    """
    deadlines = [parent.deadline for parent in parents]
    known = [deadline for deadline in deadlines if deadline is not None]
    callers = dict.fromkeys(name for parent in parents for name in parent.callers)
    return RequestContext(
        deadline=max(known) if known and len(known) == len(deadlines) else None,
        callers=(*callers, caller),
        on_tokens=shared_payer(parents),
        tenant=shared_tenant(parents),
        trace=next((each.trace for each in parents if each.trace is not None), None),
        window=window,
        client=shared_client(parents),
    )


def shared_tenant(parents: Sequence[CheckedRequest]) -> str:
    """Whose a request on behalf of `parents` is."""
    return "\n".join(sorted({parent.tenant for parent in parents}))


def shared_client(parents: Sequence[CheckedRequest]) -> Client | None:
    """Who asked first, on behalf of all `parents`; None: not one alone."""
    first = parents[0].client if parents else None
    return first if all(parent.client is first for parent in parents) else None


def shared_payer(parents: Sequence[CheckedRequest]) -> Callable[[int], None] | None:
    """Who pays for the tokens of a request on behalf of `parents`."""
    return _shared([parent.on_tokens for parent in parents])


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
    when_all_cancelled(parents, token.cancel)


def when_all_cancelled(parents: Sequence[CancelToken], callback: Callable[[], None]) -> None:
    """Calls back once all parents are cancelled; never for no parents."""

    def check() -> None:
        if all(parent.cancelled for parent in parents):
            callback()

    for parent in parents:
        parent.on_cancel(check)

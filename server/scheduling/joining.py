"""Which requests can be computed as one batch. Pure."""

from collections.abc import Callable

from trivet.backends.api import InferRequest, Signature

JoinKey = Callable[[InferRequest], object]


def join_key_of(signature: Signature) -> JoinKey | None:
    """What must be equal for requests to be joined; None when the signature fixes all of it."""
    specs = signature.inputs.values()
    if not any(spec.optional or -1 in spec.model_dims for spec in specs):
        return None
    return lambda request: tuple((t.name, t.shape[1:]) for t in request.inputs.values())

"""Carries out a client's wishes for its outputs: classes instead of values, shared memory."""

from collections.abc import Mapping

from trivet.backends.api import InferResponse, Residence, ResponseTooLarge
from trivet.backends.api.request import ON_HOST
from trivet.server.core import Inference
from trivet.server.models.model import Model
from trivet.server.protocol.classification import classify
from trivet.server.protocol.wishes import OutputWish

MAX_RESPONSE_BYTES = 1024 * 1024 * 1024
NONE_IN_REGION: frozenset[str] = frozenset()


def require_sendable(response: InferResponse, max_bytes: int) -> None:
    """Raises ResponseTooLarge for outputs that nobody should have to hold."""
    if response.size_bytes > max_bytes:
        raise unsendable(response, max_bytes)


def unsendable(response: InferResponse, max_bytes: int) -> ResponseTooLarge:
    """For outputs of more bytes than may be sent."""
    return ResponseTooLarge(
        f"model '{response.model_name}' answered with {response.size_bytes} bytes of outputs; the "
        f"limit is {max_bytes} bytes (--max-response-size)"
    )


def residence_of(core: Inference, wishes: Mapping[str, OutputWish]) -> Mapping[str, Residence]:
    """Where a request's outputs are wanted: those that go to a GPU's shared memory, on the GPU."""
    if not wishes:
        return ON_HOST
    on_gpu = [
        wish.name
        for wish in wishes.values()
        if wish.region is not None and core.shared_memory.is_cuda(wish.region.name)
    ]
    return dict.fromkeys(on_gpu, Residence.READY) if on_gpu else ON_HOST


def fulfil(
    core: Inference,
    model: Model,
    response: InferResponse,
    wishes: Mapping[str, OutputWish],
) -> frozenset[str]:
    """Replaces classified outputs in the response and writes those that go to shared memory.

    Returns the names of the latter. Raises InvalidRequest, TooLarge or Unsupported.
    """
    if not wishes:
        return NONE_IN_REGION
    written = set()
    for index, tensor in enumerate(response.outputs):
        wish = wishes.get(tensor.name)
        if wish is None:
            continue
        if wish.classification:
            response.outputs[index] = classify(
                tensor,
                wish.classification,
                batching=model.signature.batching,
                labels=model.labels.get(tensor.name, ()),
            )
        if wish.region is not None:
            core.shared_memory.write_tensor(wish.region, tensor)
            written.add(tensor.name)
    return frozenset(written)

"""Carries out a client's wishes for its outputs: classes instead of values, shared memory."""

from collections.abc import Mapping

from trivet.backends.api import InferRequest, InferResponse, Residence, ResponseTooLarge
from trivet.server.core import Core
from trivet.server.protocol.classification import classify
from trivet.server.protocol.wishes import OutputWish

MAX_RESPONSE_BYTES = 1024 * 1024 * 1024
NONE_IN_REGION: frozenset[str] = frozenset()


def require_sendable(response: InferResponse, max_bytes: int) -> None:
    """Raises ResponseTooLarge for outputs that nobody should have to hold."""
    size_bytes = sum(tensor.nbytes for tensor in response.outputs)
    if size_bytes > max_bytes:
        raise ResponseTooLarge(
            f"model '{response.model_name}' answered with {size_bytes} bytes of outputs; the limit "
            f"is {max_bytes} bytes (--max-response-size)"
        )


def place(core: Core, request: InferRequest, wishes: Mapping[str, OutputWish]) -> None:
    """Before the request is computed: outputs that go to a GPU's shared memory stay on the GPU."""
    on_gpu = [
        wish.name
        for wish in wishes.values()
        if wish.region is not None and core.shared_memory.is_cuda(wish.region.name)
    ]
    if on_gpu:
        request.residence = dict.fromkeys(on_gpu, Residence.READY)


def fulfil(
    core: Core,
    request: InferRequest,
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
                batching=request.batching,
                labels=request.labels.get(tensor.name, ()),
            )
        if wish.region is not None:
            core.shared_memory.write_tensor(wish.region, tensor)
            written.add(tensor.name)
    return frozenset(written)

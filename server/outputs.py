"""Carries out a client's wishes for its outputs: classes instead of values, shared memory."""

from collections.abc import Mapping

from trivet.backends.api import InferRequest, InferResponse, ResponseTooLarge
from trivet.server.classification import classify
from trivet.server.core import Core
from trivet.server.wishes import OutputWish

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
            region = wish.region
            core.shared_memory.write(region.name, region.offset, [tensor.raw()], region.byte_size)
            written.add(tensor.name)
    return frozenset(written)

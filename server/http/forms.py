"""Binary answers that differ in nothing but their tensors' values: all else is made once."""

from math import prod

from trivet.backends.api import DataType, InferResponse, Tensor
from trivet.backends.api.value import value
from trivet.server.http.answers import BINARY, Buffer, begin_of_head
from trivet.server.http.head import HEADER_LENGTH
from trivet.server.http.tensors import SMALL_BYTES, binary_text

_MOST_KEPT = 1024


@value
class Form:
    """What answers have alike whose outputs have the same names, types and shapes."""

    datatypes: tuple[DataType, ...]
    begin: bytes
    """Of their heads."""
    text: bytes
    """Their JSON part."""
    size_bytes: int
    """Of their bodies."""
    is_small: bool
    """Whether copies of all values cost less than views on them."""

    def parts(self, response: InferResponse) -> list[Buffer]:
        """The body of one of them."""
        if self.is_small:
            return [self.text, *[tensor.small_raw(SMALL_BYTES) for tensor in response.outputs]]
        return [self.text, *[tensor.raw() for tensor in response.outputs]]


class Forms:
    """Keeps the most recent ones. Owned by the event loop."""

    def __init__(self, max_response_bytes: int) -> None:
        self._max_response_bytes = max_response_bytes
        self._known: dict[tuple[object, ...], Form] = {}

    def of(self, response: InferResponse) -> Form | None:
        """None for an answer that says more, that is too large, or whose size its shapes do not
        tell."""
        if response.id or response.parameters:
            return None
        key: list[object] = [response.model_name, response.model_version]
        for tensor in response.outputs:
            key += (tensor.name, tensor.shape)
        known = self._known.get(tuple(key))
        if known is not None:
            for tensor, datatype in zip(response.outputs, known.datatypes, strict=True):
                if tensor.datatype is not datatype:
                    break
            else:
                return known
        form = self._make(response)
        if form is not None:
            if len(self._known) >= _MOST_KEPT:
                del self._known[next(iter(self._known))]
            self._known[tuple(key)] = form
        return form

    def _make(self, response: InferResponse) -> Form | None:
        sizes = [_size_bytes(tensor) for tensor in response.outputs]
        if not 0 < sum(sizes) <= self._max_response_bytes or min(sizes) < 0:
            return None
        text = binary_text(response, sizes)
        size_bytes = len(text) + sum(sizes)
        begin = begin_of_head(200, size_bytes, BINARY, {HEADER_LENGTH: str(len(text))})
        datatypes = tuple(tensor.datatype for tensor in response.outputs)
        return Form(datatypes, begin, text, size_bytes, max(sizes) <= SMALL_BYTES)


def _size_bytes(tensor: Tensor) -> int:
    """Below 0 where the shape does not tell."""
    return -1 if tensor.datatype is DataType.BYTES else prod(tensor.shape) * tensor.datatype.size

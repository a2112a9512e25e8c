"""How long the texts of a request are, about, before anybody has tokenised them."""

from itertools import pairwise

import numpy as np

from trivet.backends.api import Batch, CheckedRequest, Tensor
from trivet.backends.api.encoder import EncoderInfo

TEXT, PAIR, IDS = "text", "text_pair", "input_ids"
_FIRST_BYTES_A_TOKEN = 4.0
_MEMORY = 64
"""Batches that the mean looks back, roughly."""


class TextLengths:
    """By the bytes of texts, and how many lately were a token. The event loop asks; the instance's
    thread learns."""

    def __init__(self, info: EncoderInfo) -> None:
        self.budget = info.batch_tokens
        """In tokens; see CostsByLength."""
        self._max_tokens = info.max_tokens
        self._bytes_a_token = _FIRST_BYTES_A_TOKEN

    def of(self, request: CheckedRequest) -> int:
        """See CostsByLength."""
        tensors = request.inputs
        if IDS in tensors:
            return tensors[IDS].shape[-1]
        num_bytes = sum(max(_sizes(tensors[name])) for name in (TEXT, PAIR) if name in tensors)
        return min(2 + int(num_bytes / self._bytes_a_token), self._max_tokens)

    def learn(self, batch: Batch) -> None:
        """What came of a batch's texts."""
        num_bytes = num_tokens = 0
        for index, count in (batch.num_tokens or {}).items():
            tensors = batch.requests[index].inputs
            if TEXT in tensors:
                num_tokens += count
                given = (tensors[name] for name in (TEXT, PAIR) if name in tensors)
                num_bytes += sum(sum(_sizes(tensor)) for tensor in given)
        if num_tokens:
            self._bytes_a_token += (num_bytes / num_tokens - self._bytes_a_token) / _MEMORY


def _sizes(tensor: Tensor) -> list[int]:
    """The bytes of its texts, at least one number."""
    data = tensor.data
    if isinstance(data, np.ndarray):
        return [len(text) for text in data.ravel()] or [0]
    return [end - start - 4 for start, end in pairwise(data.offsets)] or [0]

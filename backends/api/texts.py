"""BYTES tensors for frameworks whose strings are text: UTF-8 bytes to str and back."""

import numpy as np

from trivet.backends.api.batch import Batch
from trivet.backends.api.checked import CheckedRequest
from trivet.backends.api.errors import InvalidRequest


def gather_text(batch: Batch, name: str, framework: str) -> np.ndarray | None:
    """`Batch.gather` of a BYTES input as str objects.

    A request whose bytes are no UTF-8 fails alone: it is computed with empty strings, unseen.
    """
    if name not in batch.requests[0].inputs:
        return None
    parts = [_decode(batch, index, name, framework) for index in range(len(batch.requests))]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """The same array of objects with every str as UTF-8 bytes."""
    encoded = np.empty(values.size, dtype=object)
    encoded[:] = [str(value).encode() for value in values.ravel()]
    return encoded.reshape(values.shape)


def _decode(batch: Batch, index: int, name: str, framework: str) -> np.ndarray:
    request: CheckedRequest = batch.requests[index]
    values = request.inputs[name].numpy()
    text = np.full(values.size, "", dtype=object)
    try:
        text[:] = [v if isinstance(v, str) else bytes(v).decode() for v in values.ravel()]
    except UnicodeDecodeError as error:
        batch.fail(
            index,
            InvalidRequest(
                f"input '{name}' has a string that is not UTF-8 (byte {error.start}), but "
                f"{framework} takes only UTF-8 text"
            ),
        )
    return text.reshape(values.shape)

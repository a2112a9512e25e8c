"""The classification extension: an output's largest values as text, instead of all its values."""

from collections.abc import Sequence

import numpy as np

from trivet.backends.api import DataType, InvalidRequest, Tensor

MAX_ELEMENTS = 1_000_000
_INTEGER_KINDS = "iu"
_UNSUPPORTED = frozenset({DataType.BYTES, DataType.BOOL, DataType.FP16, DataType.BF16})


def classify(tensor: Tensor, count: int, *, batching: bool, labels: Sequence[str]) -> Tensor:
    """The `count` largest values as BYTES "value:index[:label]", in descending order.

    Shape [b, k] for a batching model (b: the leading dimension), else [k], with k the lesser of
    `count` and the elements there are. Raises InvalidRequest for a type that has no order here and
    beyond a million elements.
    """
    _check(tensor)
    rows = tensor.numpy().reshape(tensor.shape[0] if batching and tensor.shape else 1, -1)
    texts = np.empty((rows.shape[0], min(count, rows.shape[1])), dtype=object)
    for index, row in enumerate(rows):
        texts[index] = _top(row, texts.shape[1], labels)
    shape = texts.shape if batching and tensor.shape else texts.shape[1:]
    return Tensor(tensor.name, DataType.BYTES, shape, texts.reshape(shape))


def _check(tensor: Tensor) -> None:
    if tensor.datatype in _UNSUPPORTED:
        raise InvalidRequest(
            f"class result not available for output due to unsupported type "
            f"'{tensor.datatype.value}' (output '{tensor.name}')"
        )
    elements = int(np.prod(tensor.shape, dtype=object))
    if elements > MAX_ELEMENTS:
        raise InvalidRequest(
            f"classification output tensor too large: output '{tensor.name}' has {elements} "
            f"elements, the limit is {MAX_ELEMENTS}; ask for the values themselves"
        )


def _top(row: np.ndarray, count: int, labels: Sequence[str]) -> list[bytes]:
    indices = _largest(row, count)
    form = "%d" if row.dtype.kind in _INTEGER_KINDS else "%f"
    return [
        f"{form % row[index]}:{index}{f':{labels[index]}' if index < len(labels) else ''}".encode()
        for index in indices.tolist()
    ]


def _largest(row: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values, largest first; of equals the lower index first."""
    # NaN sorts last in numpy, which read backwards would make it the best class.
    keys = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    candidates = np.arange(row.size)
    if count < row.size:
        # Only the few largest need an order: a full sort of a million values takes 80 ms.
        threshold = np.partition(keys, row.size - count)[row.size - count]
        candidates = np.flatnonzero(keys >= threshold)
    order = np.argsort(keys[candidates][::-1], kind="stable")[::-1]
    best: np.ndarray = candidates[::-1][order][:count]
    return best

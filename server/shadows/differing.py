"""In what two answers to the same request differ. Pure."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from trivet.backends.api import DataType, Tensor
from trivet.server.models.shadowing import Shadow

MOST_CHARACTERS = 1024
"""Of two texts that are looked at for how similar they are."""
MOST_PAIRS = 2 * MOST_CHARACTERS**2
"""Of characters, in all texts of a tensor: what is exact takes so many steps and more, in Python,
which nothing else of the process computes beside. What is left is told by an upper bound."""
_ALMOST = 0.9999


def differences(
    first: Sequence[Tensor], second: Sequence[Tensor], setting: Shadow, classes: frozenset[str]
) -> list[str]:
    """A sentence for each output that differs; `classes`: outputs whose largest value decides."""
    others = {tensor.name: tensor for tensor in second}
    found = [f"{name}: it is new" for name in others.keys() - {each.name for each in first}]
    for tensor in first:
        other = others.get(tensor.name)
        told = "it is missing" if other is None else _differs(tensor, other, setting, classes)
        if told:
            found.append(f"{tensor.name}: {told}")
    return sorted(found)


def _differs(first: Tensor, second: Tensor, setting: Shadow, classes: frozenset[str]) -> str:
    if first.datatype is not second.datatype:
        return f"{first.datatype.value} became {second.datatype.value}"
    if first.shape != second.shape:
        return f"shape {list(first.shape)} became {list(second.shape)}"
    if first.datatype is DataType.BYTES:
        return _texts(first, second, setting.similarity)
    one, other = (np.asarray(each.numpy(), np.float64) for each in (first, second))
    if first.name in classes and one.ndim and one.shape[-1]:
        flipped = int(np.count_nonzero(one.argmax(-1) != other.argmax(-1)))
        if flipped:
            return f"{flipped} of {one.argmax(-1).size} labels flipped"
    tolerance = setting.tolerance
    is_close = np.isclose(other, one, rtol=tolerance, atol=tolerance, equal_nan=True)
    if is_close.all():
        return ""
    furthest = float(np.nanmax(np.abs(other - one)))
    return f"{int((~is_close).sum())} of {one.size} numbers differ, by up to {furthest:.4g}"


def _texts(first: Tensor, second: Tensor, similarity: float) -> str:
    least, left = 1.0, MOST_PAIRS
    for one, other in zip(first.numpy().ravel(), second.numpy().ravel(), strict=True):
        if one != other:
            pair = (_text(one), _text(other))
            matcher = SequenceMatcher(None, *pair, autojunk=False)
            # The quick ratio is an upper bound: most that differ need no more.
            ratio = matcher.quick_ratio()
            left -= len(pair[0]) * len(pair[1])
            if ratio >= similarity and left >= 0:
                ratio = matcher.ratio()
            # Texts that are looked at by halves, or by their letters, differ nevertheless.
            least = min(least, ratio if ratio < 1.0 else _ALMOST)
    return "" if least >= similarity else f"a text is {100 * least:.1f} % alike"


def _text(value: bytes | str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text[:MOST_CHARACTERS]

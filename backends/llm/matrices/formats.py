"""The formats that there are, and how one is found, joined and made of another."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.fp8 import Fp8
from trivet.backends.llm.matrices.matrix import Format, Matrix

FORMATS: tuple[Format, ...] = (Fp8, Dense)
"""In the order in which they are asked for a matrix; the last says what is missing."""
AT_LOAD: Mapping[str, Callable[[Dense], Matrix]] = {Fp8.name: Fp8.of}
"""What the model parameter `quantization` makes of dense matrices."""


def take_matrix(tensors: Mapping[str, Tensor], name: str) -> Matrix:
    """A matrix in the format in which the file has it. Raises LoadFailed if it is not there."""
    for each in FORMATS:
        matrix = each.take(tensors, name)
        if matrix is not None:
            return matrix
    raise AssertionError("the last format takes or raises")


def formats_of(tensors: Mapping[str, Tensor], quantization: str) -> frozenset[str]:
    """The formats of a model's matrices, by name, once they are loaded."""
    made = {quantization} if quantization else set()
    return frozenset(each.name for each in FORMATS if each.is_in(tensors)) | made


def quantised(matrix: Matrix, quantization: str) -> Matrix:
    """As the model parameter `quantization` wants it. Whatever a file has quantised stays so."""
    if not quantization or not isinstance(matrix, Dense):
        return matrix
    return AT_LOAD[quantization](matrix)


def join(parts: Sequence[Matrix], names: str) -> Matrix:
    """Matrices of the same inputs as one, each below the one before it. Raises LoadFailed where
    they are of several formats."""
    first, *others = parts
    if any(type(other) is not type(first) for other in others):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise LoadFailed(
            f"the weights {names} are of different formats ({kinds}), but are multiplied as one"
        )
    return first.joined(others)

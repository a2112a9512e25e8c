"""The formats that matrices have in memory: how they are joined, and made of dense ones."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from trivet.backends.llm.matrices.codes import E4M3
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.fp8 import Fp8
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import Matrix, Multiplied, Stored
from trivet.backends.llm.matrices.mixed import Mixed
from trivet.backends.llm.matrices.rounding import rounded_to_4, rounded_to_8

AT_LOAD: Mapping[str, Callable[[Dense], Matrix]] = {
    Fp8.name: Fp8.of,
    "int4": rounded_to_4,
    "int8": rounded_to_8,
}
"""What the model parameter `quantization` makes of dense matrices."""
SHARES = {"fp8": 1 / 2, "int4": 5 / 16, "int8": 1 / 2}
"""What is left of numbers of 16 bits."""
_MADE = {"int4": Grouped.name, "int8": Grouped.name}
"""Of which format that is."""


def formats_of(weights: Mapping[str, Stored], quantization: str) -> frozenset[str]:
    """The formats of a model's matrices, by name, once they are loaded."""
    packed = {each.name for each in weights.values() if not isinstance(each, Tensor)}
    # Embeddings and norms always are dense numbers.
    made = {_MADE.get(quantization, quantization)} if quantization else set()
    return frozenset({Dense.name}) | packed | made


def quantised(matrix: Matrix, quantization: str) -> Matrix:
    """As the model parameter `quantization` wants it. Whatever a file has quantised stays so, but
    for e4m3 blocks, which are multiplied in 8 bits with scales of their rows only."""
    if not quantization:
        return matrix
    if quantization == Fp8.name and isinstance(matrix, Grouped) and matrix.code == E4M3:
        matrix = Dense(matrix.expanded())
    return AT_LOAD[quantization](matrix) if isinstance(matrix, Dense) else matrix


def join(parts: Sequence[Matrix]) -> Multiplied:
    """Matrices of the same inputs as one, each below the one before it."""
    first, *others = parts
    if all(type(other) is type(first) and first.can_join(other) for other in others):
        return first.joined(others)
    return Mixed(tuple(parts))

"""The tensors of a folder, of which readers take those that together are one matrix."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.bits import CHUNK
from trivet.backends.llm.matrices.matrix import Matrix, Stored

SCALE_TYPES = (torch.float16, torch.bfloat16, torch.float32)


class Source:
    """A folder's tensors by name. Readers put matrices in the place of what they take."""

    def __init__(self, weights: dict[str, Stored], dtype: torch.dtype) -> None:
        self.weights = weights
        self.dtype = dtype
        """Of what is computed."""

    def stems(self, ending: str) -> list[str]:
        """What stands before `ending` in the names that have it."""
        return [name.removesuffix(ending) for name in self.weights if name.endswith(ending)]

    def get(self, name: str) -> Tensor | None:
        """A tensor that may be there."""
        found = self.weights.get(name)
        return found if isinstance(found, Tensor) else None

    def take(self, name: str) -> Tensor | None:
        """The same, and it is no longer there."""
        found = self.get(name)
        if found is not None:
            del self.weights[name]
        return found

    def need(self, name: str, beside: str) -> Tensor:
        """A tensor that must be there beside another. Raises LoadFailed."""
        found = self.take(name)
        if found is None:
            raise LoadFailed(f"the packed weight '{beside}' has no '{name}' beside it")
        return found

    def need_matrix(self, name: str, beside: str) -> Tensor:
        """The same of two dimensions, neither of which is 0. Raises LoadFailed."""
        found = self.need(name, beside)
        if found.dim() != len(("rows", "columns")) or not found.numel():
            raise LoadFailed(f"weight '{name}' is of shape {list(found.shape)}, which is no matrix")
        return found

    def need_words(self, name: str, beside: str) -> Tensor:
        """The same of int32, each of which holds several codes. Raises LoadFailed."""
        found = self.need_matrix(name, beside)
        if found.dtype != torch.int32:
            raise LoadFailed(
                f"weight '{name}' is of type {str(found.dtype).removeprefix('torch.')}; words of "
                "codes must be int32"
            )
        return found

    def put(self, stem: str, matrix: Matrix) -> None:
        """As the weight of that name."""
        self.weights[f"{stem}.weight"] = matrix


def check_shape(name: str, tensor: Tensor, wanted: tuple[int, ...], why: str) -> None:
    """Raises LoadFailed. `why`: what its shape follows from."""
    if tuple(tensor.shape) != wanted:
        raise LoadFailed(
            f"weight '{name}' is of shape {list(tensor.shape)}; {why} needs {list(wanted)}"
        )


def check_scales(name: str, scales: Tensor) -> Tensor:
    """Raises LoadFailed for scales that are no floating-point numbers."""
    if scales.dtype not in SCALE_TYPES:
        raise LoadFailed(
            f"weight '{name}' is of type {str(scales.dtype).removeprefix('torch.')}; scales must "
            "be float16, bfloat16 or float32"
        )
    return scales


def check_groups(name: str, inputs: int, num_groups: int, group_size: int = 0) -> None:
    """Whether `num_groups` of `group_size` (0: any) make up the inputs, and are packed in whole
    chunks. Raises LoadFailed."""
    size = inputs // max(num_groups, 1)
    wanted = group_size or size
    if num_groups == 0 or size * num_groups != inputs or size != wanted:
        raise LoadFailed(
            f"weight '{name}' has {inputs} inputs and {num_groups} groups"
            + (f" of {group_size}" if group_size else "")
            + ", which do not divide them evenly"
        )
    if inputs % CHUNK:
        raise LoadFailed(f"weight '{name}' has {inputs} inputs, no multiple of {CHUNK}")


def unpacked_words(words: Tensor, bits: int, axis: int) -> Tensor:
    """uint8, of int32 words that hold 32 / bits codes each along an axis, the lowest first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    shape = [1] * (words.dim() + 1)
    shape[axis + 1] = -1
    codes = (words.unsqueeze(axis + 1) >> shifts.view(shape)) & ((1 << bits) - 1)
    return codes.to(torch.uint8).flatten(axis, axis + 1)

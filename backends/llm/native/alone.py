"""Parts of the compiled step by themselves: for models whose code is not ours, which call them."""

import ctypes

import torch
from torch import Tensor

from trivet.backends.llm.families.kinds import Activation, RmsNorm
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import INPUTS, OUTPUTS
from trivet.backends.llm.native.kinds import ACTIVATIONS, norm_kind
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.matrices import PackedMatrix
from trivet.backends.llm.native.packing import PANEL, interleaved, padded
from trivet.backends.llm.native.structures import (
    CActivated,
    CMlp,
    CModel,
    CMultiplied,
    CNorm,
    CNormed,
)

TILE = 16
"""Rows that are read at once, where there are more."""
_MOST_NORMED = 1 << 15
"""Numbers of a row: it lies on the stack."""


class NativeProduct:
    """[.., inputs] to [.., outputs], of bfloat16."""

    def __init__(
        self, native: Native, weight: Tensor, bias: Tensor | None, *, is_gated: bool = False
    ) -> None:
        """`weight`: as `can_multiply` has it. `is_gated`: of a gate and what it lets through; 16
        outputs of the one and of the other take turns."""
        self.matrix = PackedMatrix(Dense(weight), is_gated=is_gated)
        self.bias = None if bias is None else padded(interleaved(bias) if is_gated else bias)
        """Of the matrix' outputs in their order."""
        self.outputs, self.inputs = weight.shape[OUTPUTS], weight.shape[INPUTS]
        self._width = self.matrix.num_columns
        self._model = alone(native)
        self._given = CMultiplied(
            depth=self.inputs, width=self._width, weight=ctypes.addressof(self.matrix.array),
            bias=None if self.bias is None else self.bias.data_ptr(),
        )  # fmt: skip
        self._multiply = native.functions.multiply_alone
        self._arguments = ctypes.byref(self._model), ctypes.byref(self._given)

    def __call__(self, states: Tensor) -> Tensor:
        """Multiplied."""
        given, read = self._given, readable(states)
        made = states.new_empty(*states.shape[:-1], self._width)
        given.rows = states.numel() // self.inputs
        given.left, given.to = read.data_ptr(), made.data_ptr()
        self._multiply(*self._arguments)
        return made if self._width == self.outputs else made[..., : self.outputs]


class NativeMlp:
    """A gated MLP: [.., hidden] to the same, of bfloat16."""

    def __init__(
        self, native: Native, activation: Activation, into: NativeProduct, down: NativeProduct
    ) -> None:
        """`into`: of gate and what it lets through; both of whole panels."""
        self._into, self._down = into, down
        self._inner = into.outputs // 2
        self.made = CMlp(
            self._inner, ACTIVATIONS.index(activation), True,
            *(
                address
                for product in (into, down)
                for address in (
                    ctypes.addressof(product.matrix.array),
                    None if product.bias is None else product.bias.data_ptr(),
                )
            ),
        )  # fmt: skip
        """As a layer has it."""
        self._model = alone(native)
        self._given = CActivated(hidden=down.outputs, mlp=ctypes.addressof(self.made))
        self._compute = native.functions.mlp_alone
        self._arguments = ctypes.byref(self._model), ctypes.byref(self._given)

    def __call__(self, states: Tensor) -> Tensor:
        """Computed."""
        given, read = self._given, readable(states)
        rows = states.numel() // given.hidden
        made = torch.empty_like(states, memory_format=torch.contiguous_format)
        activated = states.new_empty(rows + TILE, self._inner)
        given.rows, given.left, given.to = rows, read.data_ptr(), made.data_ptr()
        given.activated = activated.data_ptr()
        self._compute(*self._arguments)
        return made


class NativeNorm:
    """Of rows in bfloat16: [.., size] to the same."""

    def __init__(self, native: Native, kind: RmsNorm, weight: Tensor) -> None:
        """`weight`: [size], as `can_norm` has it."""
        self.size = len(weight)
        """Of a row."""
        self._added = (weight.float() + kind.offset).contiguous()
        self.made = CNorm(norm_kind(kind), kind.eps, self._added.data_ptr(), None)
        """As a layer has it."""
        self._model = alone(native)
        self._given = CNormed(norm=ctypes.addressof(self.made), size=self.size)
        self._normalise = native.functions.norm_alone
        self._arguments = ctypes.byref(self._model), ctypes.byref(self._given)

    def __call__(self, states: Tensor) -> Tensor:
        """Normed."""
        read = states.contiguous()
        made = torch.empty_like(read)
        given = self._given
        given.rows, given.from_ = read.numel() // self.size, read.data_ptr()
        given.to = made.data_ptr()
        self._normalise(*self._arguments)
        return made


def can_multiply(weight: Tensor) -> bool:
    """Whether NativeProduct takes it."""
    return _is_here(weight) and not weight.shape[INPUTS] % PANEL


def can_norm(weight: Tensor) -> bool:
    """Whether NativeNorm takes it."""
    is_row = weight.dim() == 1 and not len(weight) % TILE and len(weight) <= _MOST_NORMED
    return _is_here(weight) and is_row


def alone(native: Native) -> CModel:
    """What a part is told of the machine."""
    return CModel(has_amx=native.has_amx, threads=torch.get_num_threads())


def _is_here(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu"


def readable(states: Tensor) -> Tensor:
    """In bfloat16, rows side by side, and to whole tiles where they are read so."""
    if states.dtype != torch.bfloat16:
        raise TypeError(f"states of {states.dtype} are multiplied with weights of bfloat16")
    size = states.shape[-1]
    rows = states.numel() // size
    if rows <= TILE or not rows % TILE:
        return states.contiguous()
    read = states.new_zeros(rows + -rows % TILE, size)
    read[:rows] = states.reshape(rows, size)
    return read

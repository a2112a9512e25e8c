"""A layer as the compiled step computes it, for models whose code is not ours."""

import ctypes

import torch
from torch import Tensor

from trivet.backends.llm.native.alone import NativeMlp, NativeNorm, alone, readable
from trivet.backends.llm.native.alone_attention import NativeAttention, NativeAttentionBlock
from trivet.backends.llm.native.structures import CLayerBlock


class NativeLayer:
    """x += attention(norm(x)), then x += mlp(norm(x)): [1, tokens, hidden] to the same, of
    bfloat16, for all tokens of the attention's step. Sums within are float32."""

    def __init__(
        self,
        attention: NativeAttention,
        block: NativeAttentionBlock,
        norms: tuple[NativeNorm, NativeNorm],
        mlp: NativeMlp,
    ) -> None:
        """`block`: of this attention; what it knows of its layer becomes more."""
        self._attention, self._layer = attention, block.layer
        self._kept = block, norms, mlp
        made = self._layer
        made.before_attention, made.before_mlp = (norm.made for norm in norms)
        made.multiplier = 1.0
        made.mlps = ctypes.pointer(mlp.made)
        self._model = alone(attention.native)
        self._model.hidden, self._model.layers = norms[0].size, 1
        self._model.block_size = attention.model.block_size
        self._given = CLayerBlock(layer=ctypes.addressof(made))
        functions = attention.native.functions
        self._compute, self._scratch_bytes = functions.layer_alone, functions.scratch_bytes
        self._arguments = ctypes.byref(self._model), ctypes.byref(self._given)

    def __call__(self, states: Tensor, cosines: Tensor | None, sines: Tensor | None) -> Tensor:
        """Computed; see NativeAttentionBlock."""
        attention, given, layer = self._attention, self._given, self._layer
        step, read = attention.step, readable(states)
        made = torch.empty_like(states, memory_format=torch.contiguous_format)
        assert states.numel() == step.tokens * self._model.hidden
        if cosines is not None and sines is not None:
            layer.cosines, layer.sines = cosines.data_ptr(), sines.data_ptr()
        size = self._scratch_bytes(self._arguments[0], ctypes.byref(layer), step.tokens, 0)
        given.step, given.scratch = ctypes.addressof(step), attention.scratch(size)
        given.from_, given.to = read.data_ptr(), made.data_ptr()
        self._compute(*self._arguments)
        return made

"""What of a model the compiled step computes: its kinds, and their sizes."""

from collections.abc import Mapping

import torch

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import (
    Activation,
    Arrangement,
    ExpertMlp,
    GroupedAttention,
    Layer,
    LayerNorm,
    Mlp,
    Norm,
    RmsNorm,
)
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.native.packing import PANEL

HEAD_STEP, MAX_HEAD = 16, 256
MAX_GROUP = 16
"""Query heads to a key/value head."""
MAX_EXPERTS = 512
COMPUTES = frozenset({
    Need.PRE_NORM, Need.POST_NORM, Need.SANDWICH, Need.PARALLEL, Need.PARALLEL_NORMS,
    Need.RESIDUAL_MULTIPLIER, Need.RMS_NORM, Need.LAYER_NORM, Need.NORM_BIAS, Need.NORM_OFFSET,
    Need.ROTARY, Need.PARTIAL_ROTARY, Need.UNROTATED, Need.LEARNED_POSITIONS, Need.LINEAR_BIASES,
    Need.WINDOW, Need.SCORE_CAP, Need.QKV_BIAS, Need.QKV_CLIP, Need.OUTPUT_BIAS, Need.HEAD_NORMS,
    Need.OWN_HEAD_NORMS, Need.JOINT_HEAD_NORMS, Need.GATED_MLP, Need.PLAIN_MLP, Need.EXPERTS,
    Need.SIGMOID_ROUTER, Need.EXPERT_GROUPS, Need.SHARED_EXPERT, Need.SHARED_BY_SHARE,
    Need.MLP_BIAS, Need.SILU, Need.GELU, Need.GELU_TANH, Need.GELU_SIGMOID,
    Need.RELU, Need.RELU_SQUARED, Need.EMBEDDING_MULTIPLIER, Need.EMBEDDING_NORM, Need.HEAD_BIAS,
    Need.LOGIT_MULTIPLIER, Need.LOGIT_CAP, Need.DIFFERENT_LAYERS,
})  # fmt: skip
"""See Implementation."""
ACTIVATIONS = (
    Activation.SILU, Activation.GELU, Activation.GELU_TANH, Activation.GELU_SIGMOID,
    Activation.RELU, Activation.RELU_SQUARED,
)  # fmt: skip
"""In the order of model.h."""
PARALLEL = frozenset({Arrangement.PARALLEL, Arrangement.PARALLEL_NORMS})
_BEFORE_ATTENTION = {"before_attention": Role.ATTENTION_NORM}
_BEFORE = {**_BEFORE_ATTENTION, "before_mlp": Role.MLP_NORM}
_AFTER = {"after_attention": Role.ATTENTION_POST_NORM, "after_mlp": Role.MLP_POST_NORM}
NORMS: Mapping[Arrangement, Mapping[str, Role]] = {
    Arrangement.PRE_NORM: _BEFORE,
    Arrangement.POST_NORM: _AFTER,
    Arrangement.SANDWICH: {**_BEFORE, **_AFTER},
    Arrangement.PARALLEL: _BEFORE_ATTENTION,
    Arrangement.PARALLEL_NORMS: _BEFORE,
}
"""A layer's, by where they stand in model.h's structure."""
_RMS_ROUNDED, _RMS, _LAYER_NORM = 1, 2, 3
"""In the order of model.h."""


def norm_kind(norm: Norm) -> int:
    """In model.h's numbers."""
    if isinstance(norm, RmsNorm):
        # See models/norms.py: weights that differ little from their offset are not rounded.
        return _RMS if norm.offset else _RMS_ROUNDED
    assert isinstance(norm, LayerNorm)
    return _LAYER_NORM


def why_not(config: LlmConfig, dtype: torch.dtype) -> str:
    """Why the compiled step cannot compute a model of its kinds; empty if it can."""
    if dtype != torch.bfloat16:
        return f"it computes in bfloat16, not {str(dtype).removeprefix('torch.')}"
    if config.hidden_size % PANEL:
        return f"layers are of {config.hidden_size} numbers, no multiple of {PANEL}"
    for index, layer in enumerate(config.layers):
        if reason := heads_why_not(layer.attention) or _mlp_why_not(layer):
            return f"{reason} (layer {index})"
    return ""


def heads_why_not(heads: GroupedAttention) -> str:
    """Why it cannot attend with heads of such sizes; empty if it can."""
    size = heads.head_dim
    if size % HEAD_STEP or size > MAX_HEAD:
        return f"heads are of size {size}, no multiple of {HEAD_STEP} up to {MAX_HEAD}"
    widths = heads.num_heads * size, (heads.num_heads + 2 * heads.num_kv_heads) * size
    if any(width % PANEL for width in widths):
        return f"all heads together are of {widths[0]} numbers, no multiple of {PANEL}"
    if heads.num_heads // heads.num_kv_heads > MAX_GROUP:
        return f"more than {MAX_GROUP} query heads share a key/value head"
    return ""


def _mlp_why_not(layer: Layer) -> str:
    mlp: Mlp = layer.mlp
    if any(width % PANEL for width in mlp.widths()):
        widths = " and ".join(map(str, mlp.widths()))
        return f"the MLP is of {widths} numbers, no multiple of {PANEL}"
    if isinstance(mlp, ExpertMlp) and mlp.num_experts > MAX_EXPERTS:
        return f"more than {MAX_EXPERTS} experts"
    return ""

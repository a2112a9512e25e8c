"""The ways of computing a model, the fastest first: each states what it computes, and the first
that computes all of a model is taken. Why the others are not is told in the log.

A model is read before any of them is asked: its family says what its layers are made of, and they
say whether they know that.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.choice import choose_attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.families.needs import Need
from trivet.backends.llm.foreign.plan import ModelTensors
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.models import torch_decoder
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.native import kinds
from trivet.backends.llm.native.alone_attention import NativeAttention, attention_why_not
from trivet.backends.llm.native.decoder import NativeModel
from trivet.backends.llm.native.library import Native, load_native
from trivet.backends.llm.steps.runner import HeldModel, Model
from trivet.backends.llm.weights.taking import Weights

log = logging.getLogger(__name__)
M_co = TypeVar("M_co", bound=Model, covariant=True)
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Task:
    """A model to be computed, where its cache lies."""

    weights: Weights
    cache: KvCache
    attention: Attention


@dataclass(frozen=True, slots=True)
class Implementation(Generic[M_co]):
    """A way of computing models."""

    name: str
    """In the log."""
    computes: frozenset[Need]
    """What of a model it knows."""
    why_not: Callable[[Task], str]
    """Why it cannot compute a model of kinds that it knows: formats of matrices, sizes, types,
    ranks, the machine. Empty if it can."""
    make: Callable[[Task], M_co]
    """Takes the weights. Raises LoadFailed."""


def _native_why_not(task: Task) -> str:
    native = load_native()
    if not isinstance(native, Native):
        return native
    whole = task.weights.whole
    if task.weights.ranks.size > 1 or not (whole.is_first and whole.is_last):
        return "it computes whole models"
    if others := task.weights.formats - {Dense.name, Grouped.name}:
        return f"it multiplies no matrices of {', '.join(sorted(others))}"
    return kinds.why_not(task.weights.config, task.cache.read_as)


def _make_native(task: Task) -> Model:
    native = load_native()
    assert isinstance(native, Native)
    log.info("the compiled step computes with%s AMX", "" if native.has_amx else "out")
    return NativeModel(task.weights, task.cache, native)


def _fused_why_not(task: Task) -> str:
    if isinstance(task.attention, TorchAttention):
        return "attention is torch's, which reads no pages"
    return ""


def _make_fused(task: Task) -> HeldModel:
    # Both need Triton, which is imported where it is needed.
    from trivet.backends.llm.attention.pages import PagedAttention
    from trivet.backends.llm.models.fused_llama import FusedLlama

    assert isinstance(task.attention, PagedAttention)
    return FusedLlama(task.weights, task.attention)


def _foreign_why_not(task: Task) -> str:
    if task.weights.ranks.size > 1:
        return "it computes whole models (model parameter tensor_parallel_size)"
    if task.weights.quantization:
        return "it does not quantise matrices (model parameter quantization)"
    if task.cache.layers[0].element_size() == 1:
        return "it reads no cache of 8-bit numbers (model parameter kv_cache_dtype)"
    return ""


def attention_of(cache: KvCache, layers: Sequence[GroupedAttention]) -> Attention | None:
    """The compiled step's by itself; None where it cannot."""
    native = load_native()
    if not isinstance(native, Native) or attention_why_not(cache, layers):
        return None
    return NativeAttention(cache, layers, native)


def _make_foreign(task: Task) -> HeldModel:
    # They need transformers, which takes seconds to import: where it is needed.
    from trivet.backends.llm.foreign.adapting import (
        adapt_products,
        adapt_vocabulary,
        is_tied,
        reached_layers,
    )
    from trivet.backends.llm.foreign.layers import join_layers
    from trivet.backends.llm.foreign.norms import replace_norms
    from trivet.backends.llm.foreign.packed import PackedModel
    from trivet.backends.llm.foreign.products import pack_products

    tensors = task.weights.tensors
    assert isinstance(tensors, ModelTensors)
    tensors.model.to(task.cache.layers[0].device)
    sight = tensors.sight
    besides = () if sight is None else sight.modules()
    ties, size = is_tied(tensors.model), task.weights.config.vocabulary_size
    bank = task.weights.adapters
    reached = set() if bank is None else reached_layers(tensors.model, size)
    packed = pack_products(tensors.model, size, besides, bank)
    parts = packed, replace_norms(tensors.model)
    if bank is not None:
        adapt_products(tensors.model, bank, reached, size)
    attention = attention_of(task.cache, task.weights.config.attentions) or task.attention
    made = tensors.plan.make(task.cache, attention, bank)
    if isinstance(made, PackedModel) and isinstance(attention, NativeAttention):
        most = task.weights.config.max_positions
        join_layers(tensors.model, made.layers, parts, attention, bank, most)
    if bank is not None and isinstance(made, PackedModel) and made.slices:
        adapt_vocabulary(tensors.model, bank, is_tied=ties)
    if sight is not None:
        sight.open()
    return made


NATIVE: Implementation[Model] = Implementation(
    "the compiled step", kinds.COMPUTES, _native_why_not, _make_native
)
FUSED: Implementation[HeldModel] = Implementation(
    "fused kernels",
    frozenset({
        Need.PRE_NORM, Need.RMS_NORM, Need.ROTARY, Need.WINDOW, Need.QKV_BIAS, Need.OUTPUT_BIAS,
        Need.HEAD_NORMS, Need.GATED_MLP, Need.SILU,
    }),
    _fused_why_not,
    _make_fused,
)  # fmt: skip
TORCH: Implementation[HeldModel] = Implementation(
    "torch",
    torch_decoder.COMPUTES,
    lambda task: "",  # noqa: ARG005  # all sizes and formats, anywhere
    lambda task: TorchDecoder(task.weights, task.attention),
)
FOREIGN: Implementation[HeldModel] = Implementation(
    "transformers' own classes", frozenset({Need.FOREIGN}), _foreign_why_not, _make_foreign
)
ON_PROCESSORS: tuple[Implementation[Model], ...] = (NATIVE, TORCH, FOREIGN)
ON_DEVICES: tuple[Implementation[HeldModel], ...] = (FUSED, TORCH, FOREIGN)


def make_model(weights: Weights, cache: KvCache, attention: str = "auto") -> Model:
    """The fastest way to compute a model, or a rank's part of it, where its cache lies.
    `attention`: the kernels on a GPU, by name. Raises LoadFailed."""
    if cache.layers[0].device.type != "cpu":
        return make_held_model(weights, cache, attention)
    attention_in_torch = TorchAttention(cache, weights.config.attentions)
    return _first(ON_PROCESSORS, Task(weights, cache, attention_in_torch))


def make_held_model(weights: Weights, cache: KvCache, attention: str = "auto") -> HeldModel:
    """The same for a device, whose cache may be exchanged."""
    chosen = choose_attention(weights.config, cache, attention)
    return _first(ON_DEVICES, Task(weights, cache, chosen))


def _first(offered: Sequence[Implementation[M]], task: Task) -> M:
    passed_over: list[str] = []
    for each in offered:
        reason = missing(each.computes, task.weights.config) or each.why_not(task)
        if not reason:
            log.info("computed by %s%s", each.name, "".join(passed_over))
            return each.make(task)
        passed_over.append(f"; not by {each.name}: {reason}")
    raise LoadFailed(
        f"models of architecture '{task.weights.config.architecture}' cannot be computed as this "
        f"one is{''.join(passed_over)}"
    )


def missing(computes: frozenset[Need], config: LlmConfig) -> str:
    """What of a model somebody does not compute, and where it is; empty if all."""
    needs = config.needs()
    return ", ".join(
        f"it computes no {need.value} ({where})" for need, where in needs.items()
        if need not in computes
    )  # fmt: skip

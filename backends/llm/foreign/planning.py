"""How a model of transformers is computed over our cache: the first of the ways that gives what
transformers gives."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from trivet.backends.api import LoadFailed
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.checking import differs, make_prompts, references_of
from trivet.backends.llm.foreign.config import config_of
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.looking import OtherWayError, look
from trivet.backends.llm.foreign.packed import PackedModel
from trivet.backends.llm.foreign.plan import Plan
from trivet.backends.llm.foreign.serial_ways import SerialWays
from trivet.backends.llm.steps.runner import HeldModel, RowFailedError

log = logging.getLogger(__name__)
AS_ONE_BATCH = "as one flattened batch"
_OF_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
"""Layers of transformers' cache that keep nothing else: neither states nor indices of keys."""


def plan_model(model: Any, dtype: torch.dtype, max_num_seqs: int) -> Plan:
    """The first way that computes the model as transformers does; so many sequences run at a time.
    Raises LoadFailed with what was wrong with each."""
    begun_s = time.monotonic()
    bridge.register()
    own_attention = str(model.config._attn_implementation)  # noqa: SLF001  # the only way
    passed_over: list[str] = []
    with torch.no_grad():
        try:
            prompts = make_prompts(model.config.get_text_config(decoder=True).vocab_size)
            references = references_of(model, prompts)
        except FAULTS as error:
            raise _refusal(model, [f"a step of text alone fails: {_first_line(error)}"]) from error
        if _generates_from_others(model, prompts[0]):
            raise _refusal(model, ["it generates from other tokens than those that it is given"])
        vocabulary_size = references[0].shape[-1]
        serial = SerialWays(model, own_attention, prompts[0], vocabulary_size, max_num_seqs)
        for way in _ways(model, prompts[0], serial):
            plan, reason = _tried(way, references, prompts, dtype)
            if plan is not None:
                bridge.use(model, own_attention)  # until the plan is carried out
                seconds = time.monotonic() - begun_s
                others = "".join(f"; not otherwise: {each}" for each in dict.fromkeys(passed_over))
                log.info("%s of transformers is computed %s, found out and compared in %.1f s%s",
                         type(model).__name__, plan.name, seconds, others)  # fmt: skip
                return plan
            passed_over.append(reason)
    raise _refusal(model, passed_over)


def _generates_from_others(model: Any, prompt: Tensor) -> bool:
    """Whether `generate` would give the model tokens of its own besides, such as a mask to fill
    (XLM): its forward pass says nothing about the next token then."""
    ids = prompt[None]
    try:
        given = model.prepare_inputs_for_generation(
            ids, attention_mask=torch.ones_like(ids), use_cache=False
        )
    except FAULTS:
        return False
    found = given.get("input_ids")
    return found is not None and not torch.equal(found, ids)


def _ways(model: Any, prompt: Tensor, serial: SerialWays) -> Iterator[Callable[[], Plan]]:
    """The fastest first."""
    yield lambda: _packed(model, prompt, serial.vocabulary_size)
    yield from serial.each()


def _tried(
    way: Callable[[], Plan],
    references: Sequence[Tensor],
    prompts: Sequence[Tensor],
    dtype: torch.dtype,
) -> tuple[Plan | None, str]:
    """A way's plan, or why it is none."""
    try:
        plan = way()

        def make(cache: KvCache) -> HeldModel:
            return plan.make(cache, TorchAttention(cache, plan.config.attentions))

        reason = differs(plan.config, make, references, prompts, dtype)
    except OtherWayError as error:
        return None, str(error)
    except RowFailedError as error:
        return None, str(error).splitlines()[0][:250]
    except FAULTS as error:
        return None, _first_line(error)
    return (None, reason) if reason else (plan, "")


def _packed(model: Any, prompt: Tensor, vocabulary_size: int) -> Plan:
    stock = DynamicCache(config=model.config)
    if any(type(each) not in _OF_KEYS_AND_VALUES for each in stock.layers):
        raise OtherWayError("some layers keep more than keys and values")
    layers = look(model, prompt[None])
    config = config_of(
        model.config, tuple(each.kind for each in layers), vocabulary_size=vocabulary_size
    )
    # Where a cache forgets what its layer's mask shows (Moshi), transformers itself gives other
    # tokens behind that many.
    forgetting = [
        stock_layer.sliding_window
        for stock_layer, seen in zip(stock.layers, layers, strict=False)
        if isinstance(stock_layer, DynamicSlidingWindowLayer)
        and stock_layer.sliding_window != seen.kind.window
    ]
    config = replace(config, max_positions=min([config.max_positions, *forgetting]))

    def make(
        cache: KvCache,  # noqa: ARG001  # the attention has it
        attention: Attention,
        adapters: AdapterBank | None = None,  # noqa: ARG001  # all rows are a step's
    ) -> HeldModel:
        return PackedModel(model, layers, attention)

    return Plan(AS_ONE_BATCH, config, make)


def _refusal(model: Any, reasons: list[str]) -> LoadFailed:
    return LoadFailed(
        f"{type(model).__name__} of transformers cannot be computed over a paged cache: "
        + "; ".join(dict.fromkeys(reasons))
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

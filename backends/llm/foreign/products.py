"""Products of a model of transformers on a processor: weights in bfloat16 are brought once into the
order in which they are multiplied, as those of our own models are."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.foreign.checking import error_of, make_prompts
from trivet.backends.llm.foreign.memories import OwnMemory
from trivet.backends.llm.matrices.dense import Dense

log = logging.getLogger(__name__)
_FAULTS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)
"""What code raises that reads weights where it should call their layer."""


@torch.no_grad()
def pack_products(model: Any, vocabulary_size: int, besides: Iterable[nn.Module] = ()) -> bool:
    """Packs the weights of all linear layers, if the model then gives what it gave before; False,
    and nothing is changed, if not. `besides`: those that text does not pass through, of which that
    would say nothing."""
    spared = set(besides)
    layers = [
        each
        for each in model.modules()
        if type(each) is nn.Linear and _is_packable(each) and each not in spared
    ]
    if not layers:
        return False
    prompt = make_prompts(vocabulary_size)[0]
    before = _computed(model, prompt)
    weights = [layer.weight for layer in layers]
    for layer in layers:
        _pack(layer)
    try:
        after = _computed(model, prompt)
        is_same = len(after) == len(before) and not any(
            error_of(*each, is_exact=False) for each in zip(after, before, strict=True)
        )
    except _FAULTS:
        is_same = False
    if not is_same:
        for layer, weight in zip(layers, weights, strict=True):
            del layer.forward
            layer.weight = weight
        log.info("products are computed from unpacked weights, which the model reads itself")
    return is_same


def _computed(model: Any, prompt: Tensor) -> list[Tensor]:
    """Logits without a cache, and of the last tokens with what the first ones left, if that can be:
    code may multiply otherwise there."""
    ids, middle = prompt[None], len(prompt) // 2
    found = [model(input_ids=ids, use_cache=False).logits[0].float()]
    try:
        output = model(input_ids=ids[:, :middle], use_cache=True)
        left = {name: getattr(output, name, None) for name in OwnMemory.NAMES}
        given = {name: state for name, state in left.items() if state is not None}
        rest = model(input_ids=ids[:, middle:], use_cache=True, **given)
        one = model(input_ids=ids[:, -1:], use_cache=True, **given)
    except _FAULTS:
        return found
    return [*found, rest.logits[0].float(), one.logits[0].float()]


def _is_packable(layer: nn.Linear) -> bool:
    return layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu"


def _pack(layer: nn.Linear) -> None:
    product = Dense(layer.weight.data).product(layer.bias)
    outputs = layer.out_features

    def forward(states: Tensor) -> Tensor:
        if states.dim() == len(("rows", "inputs")):
            return product(states)
        return product(states.reshape(-1, states.shape[-1])).view(*states.shape[:-1], outputs)

    layer.forward = forward  # type: ignore[method-assign,assignment]  # a layer's own comes first
    layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)

"""Products of a model of transformers on a processor: weights in bfloat16 are brought once into the
order in which they are multiplied, as those of our own models are."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.foreign.checking import error_of, make_prompts
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
    before = model(input_ids=prompt[None], use_cache=False).logits[0].float()
    weights = [layer.weight for layer in layers]
    for layer in layers:
        _pack(layer)
    try:
        after = model(input_ids=prompt[None], use_cache=False).logits[0].float()
        is_same = not error_of(after, before, is_exact=False)
    except _FAULTS:
        is_same = False
    if not is_same:
        for layer, weight in zip(layers, weights, strict=True):
            del layer.forward
            layer.weight = weight
        log.info("products are computed from unpacked weights, which the model reads itself")
    return is_same


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

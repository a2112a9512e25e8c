"""Adapters over a model of transformers: they change the linear layers that each token of a step
goes through, in order. Which these are is seen when the model computes."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.adapters.places import Part, Place
from trivet.backends.llm.foreign.checking import make_prompts

_DIMENSIONS = 3
"""[1, tokens, inputs]: where tokens were sorted or chosen there is no sequence any more."""


def adapt_products(
    model: Any, bank: AdapterBank, reached: AbstractSet[nn.Linear], vocabulary_size: int
) -> None:
    """Lets a step's adapters add to the products of these layers."""
    bank.places.vocabulary_size = vocabulary_size
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if layer in reached and layer is not head:
            outputs, inputs = layer.out_features, layer.in_features
            place = bank.places.add((Part(name, 0, outputs, outputs),), inputs)
            layer.forward = _adapted(layer.forward, place, bank)


def adapt_vocabulary(model: Any, bank: AdapterBank, *, is_tied: bool) -> None:
    """Lets them change the embedding and the head of a model that is asked for a step's tokens and
    gives the logits that are wanted; not where either is more than a matrix."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if type(embedding) is not nn.Embedding or type(head) is not nn.Linear:
        return
    names = {module: name for name, module in model.named_modules()}
    places = bank.places
    places.hidden_size = embedding.embedding_dim
    places.embedding, places.head = names[embedding], names[head]
    places.ties_embeddings, places.has_head_bias = is_tied, head.bias is not None
    look_up, multiply = embedding.forward, head.forward

    def embed(ids: Tensor) -> Tensor:
        return bank.embed(ids[0], look_up).unsqueeze(0)

    def score(states: Tensor) -> Tensor:
        logits = multiply(states)
        return logits if bank.step is None else bank.score(states[0], logits[0]).unsqueeze(0)

    embedding.forward = embed  # type: ignore[method-assign,assignment]
    head.forward = score  # type: ignore[method-assign,assignment]


def is_tied(model: Any) -> bool:
    """Whether its head is its embedding; to be asked before products are packed."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


@torch.no_grad()
def reached_layers(model: Any, vocabulary_size: int) -> set[nn.Linear]:
    """Those that all tokens of a prompt go through, whenever they are asked; to be asked before
    products are packed."""
    prompt = make_prompts(vocabulary_size)[0]
    reached: set[nn.Linear] = set()
    passed: set[nn.Linear] = set()

    def note(layer: nn.Linear, given: tuple[Tensor, ...]) -> None:
        is_whole = given[0].dim() == _DIMENSIONS and given[0].shape[:2] == (1, len(prompt))
        (reached if is_whole else passed).add(layer)

    layers = [each for each in model.modules() if type(each) is nn.Linear]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        model(input_ids=prompt[None].to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return reached - passed


def _adapted(
    multiply: Callable[[Tensor], Tensor], place: Place, bank: AdapterBank
) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        made = multiply(states)
        step = bank.step
        if step is not None:
            rows = states.reshape(-1, place.inputs)
            if len(rows) != step.num_rows:
                module = place.parts[0].module
                raise RuntimeError(
                    f"'{module}' multiplies {len(rows)} rows of a step of {step.num_rows} tokens"
                )
            step.add(place, rows, made.view(-1, place.outputs))
        return made

    return forward

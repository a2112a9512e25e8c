"""Products of a model of transformers on a processor: weights in bfloat16 are brought once into the
order in which they are multiplied, as those of our own models are, and those that read the same
states are one product."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.foreign.checking import error_of, make_prompts
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.memories import OwnMemory
from trivet.backends.llm.foreign.mlps import FusedMlp, find_mlps
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.native.alone import NativeProduct, can_multiply
from trivet.backends.llm.native.library import Native, load_native

log = logging.getLogger(__name__)
Forward = Callable[[Tensor], Tensor]


@torch.no_grad()
def pack_products(
    model: Any,
    vocabulary_size: int,
    besides: Iterable[nn.Module] = (),
    adapters: AdapterBank | None = None,
) -> "Packed":
    """Packs the weights of all linear layers, if the model then gives what it gave before; nothing
    is changed if not. `besides`: those that text does not pass through, of which that would say
    nothing. `adapters`: will change what the layers give."""
    spared = set(besides)
    layers = [
        each
        for each in model.modules()
        if type(each) is nn.Linear and _is_packable(each) and each not in spared
    ]
    if not layers:
        return Packed()
    prompt = make_prompts(vocabulary_size)[0]
    before = _computed(model, prompt)
    for way in (_joined, _each):
        packing = _Packing(layers)
        way(model, prompt, packing, adapters)
        if _is_same(model, prompt, before):
            return packing.packed
        packing.undo()
    log.info("products are computed from unpacked weights, which the model reads itself")
    return Packed()


@dataclass(frozen=True, slots=True)
class Packed:
    """What stands in for a model's linear layers."""

    products: list["JoinedProduct"] = field(default_factory=list)
    mlps: list[FusedMlp] = field(default_factory=list)
    """Their layers are not among the products."""


class _Packing:
    """What was changed of a model, until it is known to be right."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        self._weights = [layer.weight for layer in layers]
        self.packed = Packed()

    def pack(self, layers: Sequence[nn.Linear]) -> None:
        """As one product."""
        joined = JoinedProduct(layers)
        self.packed.products.append(joined)
        for layer, columns in zip(layers, joined.columns, strict=True):
            _give(layer, joined.forward_of(columns))

    def fuse(self, mlp: FusedMlp, adapters: AdapterBank | None) -> None:
        """As two products and what is between them, where no adapter changes it."""
        for layer, own_forward in mlp.forwards():
            _give(layer, own_forward)
        module, own = mlp.module, mlp.module.forward

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            is_adapted = adapters is not None and adapters.step is not None
            given = [*args, *kwargs.values()]
            is_other = len(given) != 1 or given[0].dtype != torch.bfloat16
            made: Tensor = own(*args, **kwargs) if is_adapted or is_other else mlp(given[0])
            return made

        module.forward = forward
        self.packed.mlps.append(mlp)

    def undo(self) -> None:
        """As it was."""
        for layer, weight in zip(self.layers, self._weights, strict=True):
            del layer.forward
            layer.weight = weight
        for mlp in self.packed.mlps:
            del mlp.module.forward


def _joined(model: Any, prompt: Tensor, packing: _Packing, adapters: AdapterBank | None) -> None:
    native = load_native()
    left = list(packing.layers)
    if isinstance(native, Native):
        for found in find_mlps(model, packing.layers):
            packing.fuse(FusedMlp(native, found), adapters)
            left = [layer for layer in left if layer not in found.layers]
    for group in _reading_alike(model, left, prompt):
        packing.pack(group)


def _each(
    model: Any,  # noqa: ARG001  # a way
    prompt: Tensor,  # noqa: ARG001
    packing: _Packing,
    adapters: AdapterBank | None,  # noqa: ARG001
) -> None:
    for layer in packing.layers:
        packing.pack([layer])


def _give(layer: nn.Linear, forward: Forward) -> None:
    layer.forward = forward  # type: ignore[method-assign,assignment]  # a layer's own comes first
    layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _is_same(model: Any, prompt: Tensor, before: Sequence[Tensor]) -> bool:
    try:
        after = _computed(model, prompt)
    except FAULTS as error:
        log.debug("a model reads its products' weights, or changes what they read: %s", error)
        return False
    return len(after) == len(before) and not any(
        error_of(*each, is_exact=False) for each in zip(after, before, strict=True)
    )


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
    except FAULTS:
        return found
    return [*found, rest.logits[0].float(), one.logits[0].float()]


def _is_packable(layer: nn.Linear) -> bool:
    return layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu"


def _reading_alike(
    model: Any, layers: Sequence[nn.Linear], prompt: Tensor
) -> list[Sequence[nn.Linear]]:
    """The layers, together where they are of one module and get the same tensor of a prompt."""
    parents = {layer: name.rpartition(".")[0] for name, layer in model.named_modules()}
    asked: dict[nn.Module, list[object]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, given: tuple[object, ...]) -> None:
        asked[layer].extend(given)

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        model(input_ids=prompt[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[object, list[nn.Linear]] = {}
    for layer in layers:
        given = asked[layer]
        key = (parents[layer], id(given[0])) if len(given) == 1 else layer
        groups.setdefault(key, []).append(layer)
    return list(groups.values())


class JoinedProduct:
    """One product of layers that read the same states: the first that is asked computes all."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = tuple(layers)
        weight = layers[0].weight.data
        if len(layers) > 1:
            weight = torch.cat([layer.weight.data for layer in layers])
        self.product = product_of(weight, _bias_of(layers))
        """Of all of them."""
        ends = [0, *accumulate(layer.out_features for layer in layers)]
        self.columns = list(pairwise(ends))
        """Of each layer, from and to."""
        self._left = 0
        """How many have not taken theirs of what was computed last."""
        self._states: Tensor | None = None
        self._made: Tensor | None = None

    def forward_of(self, columns: tuple[int, int]) -> Forward:
        """A layer's own."""
        first, last = columns
        if len(self.columns) == 1:
            return self.product
        return lambda states: self._of(states)[..., first:last]

    def _of(self, states: Tensor) -> Tensor:
        made = self._made
        if made is None or self._states is not states:
            made = self.product(states)
            self._states, self._made, self._left = states, made, len(self.columns)
        self._left -= 1
        if not self._left:
            self._states = self._made = None
        return made


def _bias_of(layers: Sequence[nn.Linear]) -> Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(list(_biases(layers)))


def _biases(layers: Sequence[nn.Linear]) -> Iterator[Tensor]:
    for layer in layers:
        missing = layer.weight.new_zeros(layer.out_features)
        yield missing if layer.bias is None else layer.bias.data


def product_of(weight: Tensor, bias: Tensor | None) -> Forward:
    """The fastest there is, of states [.., inputs]."""
    native = load_native()
    if isinstance(native, Native) and can_multiply(weight):
        return NativeProduct(native, weight, bias)
    product = Dense(weight).product(bias)

    def forward(states: Tensor) -> Tensor:
        made = product(states.reshape(-1, states.shape[-1]))
        return made.view(*states.shape[:-1], made.shape[-1])

    return forward

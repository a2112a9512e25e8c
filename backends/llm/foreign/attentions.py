"""Attentions of a model of transformers on a processor: what turns out to be products, a rotation
of halves and the attention interface is one call of the compiled step's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.calls import Call, Returned
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.looking import SeenLayer
from trivet.backends.llm.foreign.products import JoinedProduct
from trivet.backends.llm.native.alone import NativeProduct
from trivet.backends.llm.native.alone_attention import block_why_not

FACTORS = (1.0, 32.0)
"""Of states: what clips queries, keys or values shows in large ones."""
_MOST = 2**-6
"""Of a head's largest number: its rotation is rounded once, not three times."""


@dataclass(frozen=True, slots=True)
class FoundAttention:
    """output(attended(rotated(into(states))))."""

    at: int
    """Its layer."""
    module: Any
    into: NativeProduct
    output: NativeProduct
    rotated: int
    """So much of a head."""
    num_nones: int
    """See Returned."""


@torch.no_grad()
def find_attentions(
    layers: Sequence[SeenLayer],
    products: Sequence[JoinedProduct],
    calls: Mapping[nn.Module, Call],
) -> Iterator[FoundAttention]:
    """Those that the compiled step computes. `products`: that layers of the model are. `calls`: of
    the modules that call the attention interface."""
    for at, layer in enumerate(layers):
        call = calls.get(layer.module)
        if call is None or call.states is None or layer.value_size != layer.kind.head_dim:
            continue
        for into, output in _products_of(layer.module, products, layer.kind):
            found = _Recognition(layer, call, into, output).tried(at)
            if found is not None:
                yield found
                break


def _products_of(
    module: nn.Module, products: Sequence[JoinedProduct], kind: GroupedAttention
) -> Iterator[tuple[NativeProduct, NativeProduct]]:
    """The two that are all that a module has, by their sizes."""
    inner = set(module.children())
    own = [each for each in products if inner.issuperset(each.layers)]
    # Of other parameters nothing would be known.
    count = sum(1 for each in own for layer in each.layers for _ in layer.parameters())
    made = [each.product for each in own if isinstance(each.product, NativeProduct)]
    is_all = count == sum(1 for _ in module.parameters())
    if is_all and len(own) == len(made) == len(("into", "output")):
        for into, output in (made, reversed(made)):
            if not block_why_not(kind, into, output):
                yield into, output


class _Recognition:
    """Whether an attention is what it seems: it is asked with the attention interface seen
    through."""

    def __init__(
        self, layer: SeenLayer, call: Call, into: NativeProduct, output: NativeProduct
    ) -> None:
        self._layer, self._call, self._into, self._output = layer, call, into, output
        self._seen: list[Tensor] = []
        states, kind = call.states, layer.kind
        assert states is not None
        chance = torch.Generator().manual_seed(3)
        self._states = torch.randn(states.shape, generator=chance)
        size = (1, states.shape[1], kind.num_heads, kind.head_dim)
        self._attended = torch.randn(size, generator=chance).bfloat16()

    def tried(self, at: int) -> FoundAttention | None:
        """As the compiled step computes it, if it does."""
        turns = self._call.turns
        rotations = {0, turns[0].shape[-1]} if turns is not None else {0}
        num_nones = -1
        for factor in FACTORS:
            states = (self._states * factor).bfloat16()
            returned = self._asked(states)
            if returned is None or not self._is_product(returned.states):
                return None
            num_nones = returned.num_nones
            rotations = {each for each in rotations if self._are_handed_on(states, each)}
        if not rotations:
            return None
        module = self._layer.module
        return FoundAttention(at, module, self._into, self._output, max(rotations), num_nones)

    def _asked(self, states: Tensor) -> Returned | None:
        call, self._seen = self._call.of(states), []
        try:
            with bridge.attending(self._attend):
                return Returned.of(self._layer.module(*call.args, **call.kwargs))
        except FAULTS:
            return None

    def _attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *_: Any,
        scaling: float | None = None,
        **__: Any,
    ) -> tuple[Tensor, None]:
        """See bridge.Attend."""
        assert module is self._layer.module
        assert scaling in {None, self._layer.kind.scale}
        self._seen += [each[0].transpose(0, 1) for each in (query, key, value)]
        return self._attended, None

    def _is_product(self, returned: Tensor) -> bool:
        """Of what was attended to."""
        wanted = self._output(self._attended.flatten(-2))
        return returned.shape == wanted.shape and _is_near(returned, wanted)

    def _are_handed_on(self, states: Tensor, rotated: int) -> bool:
        """Its queries, keys and values: of heads that are rotated so far."""
        kind = self._layer.kind
        made = self._into(states)[0]
        heads = made.reshape(len(made), -1, kind.head_dim)
        query, key, value = heads.split_with_sizes(
            [kind.num_heads, kind.num_kv_heads, kind.num_kv_heads], 1
        )
        turns = self._call.turns if rotated else None
        wanted = (_rotated(query, turns), _rotated(key, turns), value)
        return len(self._seen) == len(wanted) and all(
            seen.shape == each.shape and _is_near(seen, each)
            for seen, each in zip(self._seen, wanted, strict=True)
        )


def _rotated(heads: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
    """As the compiled step does it: by the first half of cosines and sines [1, tokens, size]."""
    if turns is None:
        return heads
    size = turns[0].shape[-1]
    first, second = heads[..., :size].float().chunk(2, -1)
    cosines, sines = (each[0, :, None, : size // 2].float() for each in turns)
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.cat((*turned, heads[..., size:].float()), -1)


def _is_near(made: Tensor, wanted: Tensor) -> bool:
    errors = (made.float() - wanted.float()).abs().amax(-1)
    return bool((errors <= _MOST * wanted.float().abs().amax(-1)).all())

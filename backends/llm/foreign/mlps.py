"""Gated MLPs of a model of transformers on a processor: what turns out to be one is two products of
the compiled step's, with nothing between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.families.kinds import Activation
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.models.mlps import ACTIVATIONS
from trivet.backends.llm.native.alone import NativeMlp, NativeProduct, can_multiply
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.packing import HALF, PANEL

_LAYERS = len(("gate", "up", "down"))
_FACTORS = (1.0, 1.0, 8.0, 64.0)
"""Of rows of states: what is brought below a limit shows in the large ones."""
_MOST = 2**-6
"""Of a row's largest output: products sum in another order."""


@dataclass(frozen=True, slots=True)
class FoundMlp:
    """down(activation(gate(states)) * up(states))."""

    module: Any
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    activation: Activation

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        """All that it has."""
        return self.gate, self.up, self.down


class FusedMlp:
    """A found one, as it is computed."""

    def __init__(self, native: Native, found: FoundMlp) -> None:
        self.module, self._found = found.module, found
        self._into = NativeProduct(native, _both(found, "weight"), _bias(found), is_gated=True)
        down = found.down
        self._down = NativeProduct(native, down.weight.data, _data(down.bias))
        self.compute = NativeMlp(native, found.activation, self._into, self._down)

    def __call__(self, states: Tensor) -> Tensor:
        """The module's output."""
        return self.compute(states)

    def forwards(self) -> Iterator[tuple[nn.Linear, Any]]:
        """Its layers by themselves, for whoever changes what they give."""
        yield self._found.gate, lambda states: self._half(states, 0)
        yield self._found.up, lambda states: self._half(states, 1)
        yield self._found.down, self._down

    def _half(self, states: Tensor, number: int) -> Tensor:
        inner = self._found.gate.out_features
        made = self._into(states).view(*states.shape[:-1], inner // HALF, 2, HALF)
        return made[..., number, :].flatten(-2)


@torch.no_grad()
def find_mlps(model: Any, layers: Sequence[nn.Linear]) -> list[FoundMlp]:
    """Those whose layers are among these."""
    left = set(layers)
    found = []
    for module in model.modules():
        inner = [each for each in module.children() if isinstance(each, nn.Linear)]
        if len(inner) == _LAYERS and left.issuperset(inner):
            # Of other parameters nothing would be known.
            own = sum(1 for _ in module.parameters())
            if own == sum(1 for layer in inner for _ in layer.parameters()):
                found += _as_gated(module, inner)
                left.difference_update(inner)
    return found


def _as_gated(module: Any, layers: Sequence[nn.Linear]) -> list[FoundMlp]:
    size, chance = layers[0].in_features, torch.Generator().manual_seed(3)
    rows = torch.randn(len(_FACTORS), size, generator=chance) * torch.tensor(_FACTORS)[:, None]
    states = rows[None].to(layers[0].weight.dtype)
    try:
        wanted = module(states)
    except FAULTS:
        return []
    if not isinstance(wanted, Tensor) or wanted.shape != states.shape:
        return []
    errors = {}
    for (gate, up, down), kind in product(_orders(layers), ACTIVATIONS):
        made = down(ACTIVATIONS[kind](gate(states)) * up(states))
        found = FoundMlp(module, gate, up, down, kind)
        errors[found] = _error_of(made[0].float(), wanted[0].float())
    # Some activations differ by little.
    nearest = min(errors, key=lambda found: errors[found], default=None)
    return [nearest] if nearest is not None and errors[nearest] <= _MOST else []


def _error_of(made: Tensor, wanted: Tensor) -> float:
    errors, largest = (made - wanted).abs().amax(-1), wanted.abs().amax(-1)
    return float((errors / largest.clamp_min(torch.finfo(largest.dtype).tiny)).max())


def _orders(layers: Sequence[nn.Linear]) -> Iterator[tuple[nn.Linear, nn.Linear, nn.Linear]]:
    """Which of the layers may be gate, up and down, by their shapes."""
    for down in layers:
        one, other = (layer for layer in layers if layer is not down)
        inner, hidden = down.in_features, down.out_features
        sizes = {(layer.in_features, layer.out_features) for layer in (one, other)}
        is_whole = not (inner % PANEL or hidden % PANEL) and can_multiply(down.weight)
        are_alike = sizes == {(hidden, inner)} and (one.bias is None) == (other.bias is None)
        if are_alike and is_whole:
            yield from ((one, other, down), (other, one, down))


def _both(found: FoundMlp, name: str) -> Tensor:
    return torch.cat([getattr(layer, name).data for layer in (found.gate, found.up)])


def _bias(found: FoundMlp) -> Tensor | None:
    return None if found.gate.bias is None else _both(found, "bias")


def _data(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.data

"""Layers of a model of transformers on a processor: what turns out to be two norms, an attention
and a gated MLP, each added to the states, is one call of the compiled step's; else the attention
is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.attentions import FACTORS, FoundAttention, find_attentions
from trivet.backends.llm.foreign.calls import Call, Returned, calls_of, stand_in
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.looking import SeenLayer
from trivet.backends.llm.foreign.mlps import FusedMlp
from trivet.backends.llm.foreign.products import Packed
from trivet.backends.llm.native.alone import NativeNorm
from trivet.backends.llm.native.alone_attention import NativeAttention, NativeAttentionBlock
from trivet.backends.llm.native.alone_layer import NativeLayer


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """x += attention(norm(x)), then x += mlp(norm(x))."""

    module: Any
    attention: FoundAttention
    norms: tuple[NativeNorm, NativeNorm]
    mlp: FusedMlp
    num_nones: int
    """See Returned."""


def join_layers(
    model: Any,
    layers: Sequence[SeenLayer],
    parts: tuple[Packed, Mapping[nn.Module, NativeNorm]],
    attention: NativeAttention,
    adapters: AdapterBank | None,
    max_positions: int,
) -> None:
    """Has a model's layers computed so from now on. `layers`: which call the attention interface.
    `parts`: the products, MLPs and norms that stand in already."""
    packed, norms = parts
    if not packed.products:
        return
    parents = _parents_of(model, layers)
    modules = [layer.module for layer in layers] + list(parents.values())
    calls = calls_of(model, layers, modules, max_positions)
    found = list(find_attentions(layers, packed.products, calls))
    whole = list(find_layers(found, parents, packed.mlps, norms, calls))
    blocks = {}
    for each in found:
        block = NativeAttentionBlock(attention, each.at, each.into, each.output, each.rotated)
        blocks[each.at] = block
        stand_in(each.module, block, attention, adapters,
                 is_turned=each.rotated > 0, num_nones=each.num_nones)  # fmt: skip
    for layer in whole:
        inner = layer.attention
        made = NativeLayer(attention, blocks[inner.at], layer.norms, layer.mlp.compute)
        stand_in(layer.module, made, attention, adapters,
                 is_turned=inner.rotated > 0, num_nones=layer.num_nones)  # fmt: skip


def _parents_of(model: Any, layers: Sequence[SeenLayer]) -> dict[nn.Module, nn.Module]:
    """What modules that attend are parts of."""
    attending = {layer.module for layer in layers}
    return {
        child: module
        for module in model.modules()
        for child in module.children()
        if child in attending
    }


@torch.no_grad()
def find_layers(
    attentions: Sequence[FoundAttention],
    parents: Mapping[nn.Module, nn.Module],
    mlps: Sequence[FusedMlp],
    norms: Mapping[nn.Module, NativeNorm],
    calls: Mapping[nn.Module, Call],
) -> Iterator[FoundLayer]:
    """Those that the compiled step computes."""
    by_module = {mlp.module: mlp for mlp in mlps}
    for each in attentions:
        module = parents.get(each.module)
        if module is None or module not in calls:
            continue
        children = list(module.children())
        inner_mlps = [by_module[child] for child in children if child in by_module]
        inner_norms = [child for child in children if child in norms]
        parts = {each.module, *(mlp.module for mlp in inner_mlps), *inner_norms}
        count = sum(1 for part in parts for _ in part.parameters())
        is_all = count == sum(1 for _ in module.parameters())
        if is_all and len(inner_mlps) == 1 and len(inner_norms) == len(("attention", "mlp")):
            seen = _SeenLayer(module, each, inner_mlps[0], calls[module])
            yield from seen.tried(inner_norms, norms)


class _SeenLayer:
    """Whether a layer is what it seems: what its parts read and give is seen."""

    def __init__(self, module: Any, attention: FoundAttention, mlp: FusedMlp, call: Call) -> None:
        self._module, self._attention, self._mlp = module, attention, mlp
        self._call = call
        self._read: dict[nn.Module, Call] = {}
        self._given: dict[nn.Module, Returned | None] = {}

    def tried(
        self, inner: Sequence[nn.Module], norms: Mapping[nn.Module, NativeNorm]
    ) -> Iterator[FoundLayer]:
        """As the compiled step computes it, if it does. `inner`: its norms, in some order."""
        for before, between in permutations(inner):
            returned = None
            for factor in FACTORS:
                returned = self._is_of(before, between, factor)
                if returned is None:
                    break
            if returned is not None:
                both, num_nones = (norms[before], norms[between]), returned.num_nones
                yield FoundLayer(self._module, self._attention, both, self._mlp, num_nones)
                return

    def _is_of(self, before: nn.Module, between: nn.Module, factor: float) -> Returned | None:
        """What it returns, if that is what its parts make of its states."""
        states = self._call.states
        if states is None:
            return None
        chance = torch.Generator().manual_seed(3)
        x = (torch.randn(states.shape, generator=chance) * factor).bfloat16()
        returned = self._asked(self._call.of(x))
        attention, mlp = self._attention.module, self._mlp.module
        attended, changed = self._given.get(attention), self._given.get(mlp)
        if returned is None or attended is None or changed is None:
            return None
        y = x + attended.states
        is_right = (
            _is(self._read[attention].states, before(x))
            and self._turns(self._read[attention]) == self._turns(self._call)
            and _is(self._read[mlp].states, between(y))
            and _is(returned.states, y + changed.states)
        )
        return returned if is_right else None

    def _turns(self, call: Call) -> object:
        """That its attention reads as they were given to the layer."""
        return id(call.kwargs.get("position_embeddings")) if self._attention.rotated else None

    def _asked(self, call: Call) -> Returned | None:
        self._read, self._given = {}, {}
        parts = (self._attention.module, self._mlp.module)
        hooks = [part.register_forward_pre_hook(self._note, with_kwargs=True) for part in parts]
        hooks += [part.register_forward_hook(self._keep) for part in parts]
        try:
            with bridge.attending(self._attend):
                return Returned.of(self._module(*call.args, **call.kwargs))
        except FAULTS:
            return None
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._read[module] = Call(args, kwargs)

    def _keep(self, module: nn.Module, _: Any, returned: Any) -> None:
        self._given[module] = Returned.of(returned)

    def _attend(self, module: Any, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:  # noqa: ARG002  # the interface's
        """See bridge.Attend: something that no state is."""
        chance = torch.Generator().manual_seed(4)
        size = self._attention.output.inputs
        heads = query.shape[1]
        made = torch.randn(1, query.shape[2], heads, size // heads, generator=chance)
        return made.bfloat16(), None


def _is(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and torch.equal(found, wanted)

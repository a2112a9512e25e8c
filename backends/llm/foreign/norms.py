"""Norms of a model of transformers on a processor, which are eight operations there: what turns out
to be RMSNorm is computed by the compiled step's."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.families.kinds import RmsNorm
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.native.alone import NativeNorm, can_norm
from trivet.backends.llm.native.library import Native, load_native

_EPS = ("variance_epsilon", "eps", "epsilon")
"""What classes call what they add to the squares' mean."""
_MOST = 2**-7
"""One rounding to bfloat16, perhaps to the other side."""
_LEAST_ALIKE = 0.97
"""So much of a norm's outputs is the same."""
_ROWS = 5


@torch.no_grad()
def replace_norms(model: Any) -> dict[nn.Module, NativeNorm]:
    """A model's norms that are computed so from now on."""
    native = load_native()
    if not isinstance(native, Native):
        return {}
    replaced = {}
    for module in model.modules():
        for norm in _candidates(module, native):
            if _gives_the_same(module, norm):
                module.forward = _guarded(norm, module.forward)
                replaced[module] = norm
                break
    return replaced


def _candidates(module: nn.Module, native: Native) -> Iterator[NativeNorm]:
    weight = getattr(module, "weight", None)
    eps = next((getattr(module, name) for name in _EPS if hasattr(module, name)), None)
    is_all = [id(each) for each in module.parameters()] == [id(weight)]
    is_norm = type(module).__name__.endswith("RMSNorm") and is_all
    if is_norm and isinstance(weight, Tensor) and isinstance(eps, float) and can_norm(weight):
        for offset in (0.0, 1.0):
            yield NativeNorm(native, RmsNorm(eps, offset=offset), weight.data)


def _gives_the_same(module: nn.Module, norm: NativeNorm) -> bool:
    """With large rows and with such as are not far from its eps."""
    size, chance = norm.size, torch.Generator().manual_seed(3)
    rows = torch.randn(1, 2 * _ROWS, size, generator=chance)
    rows[:, _ROWS:] *= 1e-3
    states = rows.bfloat16()
    try:
        wanted = module(states)
    except FAULTS:
        return False
    if not isinstance(wanted, Tensor) or wanted.dtype != torch.bfloat16:
        return False
    found = norm(states)
    errors = (found.float() - wanted.float()).abs()
    alike = float((found == wanted).float().mean())
    return bool((errors <= _MOST * wanted.float().abs()).all()) and alike >= _LEAST_ALIKE


def _guarded(norm: NativeNorm, own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What else a module is called with is its own affair."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        if len(args) != 1 or kwargs or args[0].dtype != torch.bfloat16:
            return own(*args, **kwargs)
        return norm(args[0])

    return forward

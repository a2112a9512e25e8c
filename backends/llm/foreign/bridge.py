"""Where transformers' attention layers call us: functions under two names in its registries, which
hand each call to whoever computes at the moment.

The names are its `attn_implementation`. One has a function for masks beside it and is for looking
at a model; without one, masks are not made at all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

PAGED = "trivet_paged"
LOOKED_AT = "trivet_looked_at"
Attend = Callable[..., tuple[Tensor, Tensor | None]]
"""The attention interface of transformers: module, queries, keys and values [1, heads, N, size],
mask, and what else the model hands on; gives [1, N, heads, size], and weights if there are any."""
MakeMask = Callable[..., Tensor | None]

_attend: ContextVar[Attend] = ContextVar("attend")
_make_mask: ContextVar[MakeMask] = ContextVar("make_mask")


def _attends(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return _attend.get()(*args, **kwargs)


def _makes_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return _make_mask.get()(*args, **kwargs)


def register() -> None:
    """Makes the names known. As often as one likes."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name in (PAGED, LOOKED_AT):
        ALL_ATTENTION_FUNCTIONS.register(name, _attends)
    ALL_MASK_ATTENTION_FUNCTIONS.register(LOOKED_AT, _makes_mask)


@contextmanager
def attending(attend: Attend, make_mask: MakeMask | None = None) -> Iterator[None]:
    """What layers call meanwhile, in this thread."""
    attends = _attend.set(attend)
    makes = None if make_mask is None else _make_mask.set(make_mask)
    try:
        yield
    finally:
        _attend.reset(attends)
        if makes is not None:
            _make_mask.reset(makes)


def use(model: Any, name: str) -> None:
    """Has all layers of a model of transformers call the attention of this name."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = name  # noqa: SLF001  # its setter is the only way

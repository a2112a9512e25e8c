"""Looks at a model of transformers while it computes: which attention each of its layers wants, and
whether ours gives the same."""

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.masking_utils import eager_mask

from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.masks import OtherMaskError, window_of

TOLERANCE = 1e-4
"""Of attention's outputs in float32, relative to the largest."""

_LARGE = 20.0
"""A mean product of a query's and a key's numbers."""

_NOT_OF_SCORES = frozenset({"position_ids"})
"""Tensors that layers hand on to an attention, which makes nothing of them. By any other it may
choose what is seen, as an index of keys does where there are more than were looked at."""


class OtherWayError(Exception):
    """Why a model cannot be computed in some way."""


@dataclass(frozen=True, slots=True)
class SeenLayer:
    """One call of our attention in a step of the model."""

    module: Any
    """That calls it."""
    kind: GroupedAttention
    """What the cache keeps for it: keys or values are filled up with zeros to its head size."""
    value_size: int
    """Of a head."""


@dataclass(slots=True)
class _Look:
    """What is seen in one step."""

    masks: list[tuple[Tensor, int]] = field(default_factory=list)
    """Made so far, each with the tokens that it lets one see."""
    layers: list[SeenLayer] = field(default_factory=list)

    def make_mask(self, **kwargs: Any) -> Tensor | None:
        """See bridge.MakeMask: transformers gives all by name."""
        made: Tensor = eager_mask(**kwargs)
        with suppress(OtherMaskError):  # whoever uses such a mask is refused
            self.masks.append((made, window_of(kwargs["mask_function"])))
        return made

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        where = f"layer {len(self.layers)} ({type(module).__name__})"
        if any(layer.module is module for layer in self.layers):
            raise OtherWayError(f"{where} attends twice in a step")
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if eager is None:
            raise OtherWayError(f"{where} has no attention of its own to compare with")
        given = [name for name, each in kwargs.items() if isinstance(each, Tensor)]
        if others := sorted(set(given) - _NOT_OF_SCORES):
            raise OtherWayError(f"{where} hands its attention {', '.join(others)}")
        if key.shape[1] != value.shape[1]:
            raise OtherWayError(f"{where} has {key.shape[1]} key heads, {value.shape[1]} of values")
        window = self._window(attention_mask, where)
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        wanted, weights = eager(module, query, key, value, attention_mask, scaling=scale, **kwargs)
        mask = None if attention_mask is None else attention_mask.float()
        queries, keys, values = query.float(), key.float(), value.float()
        # Once as it is, and once with scores so large that a cap on them shows.
        for factor in (1.0, _LARGE / max(float(query.abs().mean() * key.abs().mean()), 1e-6)):
            exact, _ = eager(module, queries * factor, keys, values, mask, scaling=scale, **kwargs)
            if not _equal(_attention(queries * factor, keys, values, scale, window), exact):
                raise OtherWayError(f"{where} computes attention in a way of its own")
        size = max(key.shape[-1], value.shape[-1])
        kind = GroupedAttention(
            query.shape[1], key.shape[1], size, rope=None, window=window, score_multiplier=scale
        )
        self.layers.append(SeenLayer(module, kind, value.shape[-1]))
        return wanted, weights

    def _window(self, mask: Tensor | None, where: str) -> int:
        for made, window in self.masks:
            if mask is not None and mask.data_ptr() == made.data_ptr() and mask.shape == made.shape:
                return window
        raise OtherWayError(f"{where} has a mask that is neither causal nor a window")


def look(model: Any, token_ids: Tensor) -> tuple[SeenLayer, ...]:
    """The attentions of a step of [1, N] tokens, in order. Raises OtherWayError where ours cannot
    compute them."""
    seen = _Look()
    bridge.use(model, bridge.LOOKED_AT)
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
    with bridge.attending(seen.attend, seen.make_mask):
        model(input_ids=token_ids, position_ids=positions, use_cache=False)
    if not seen.layers:
        raise OtherWayError("no layer calls the attention interface")
    return tuple(seen.layers)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int) -> Tensor:
    places = torch.arange(query.shape[2], device=query.device)
    is_seen = places <= places[:, None]
    if window:
        is_seen &= places > places[:, None] - window
    output = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=is_seen, scale=scale, enable_gqa=True
    )
    return output.transpose(1, 2)


def _equal(ours: Tensor, wanted: Tensor) -> bool:
    if ours.shape != wanted.shape:
        return False
    largest = float(wanted.abs().max())
    return bool((ours - wanted).abs().max() <= TOLERANCE * max(largest, 1e-6))

"""A sequence's cache as transformers' layers know it, over our pages and, for layers that have one,
a state of its own.

    a token's place in a layer's pages   | heads * size of its keys |   and the same of its values
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.foreign.memories import Given, Part, States


@dataclass(slots=True)
class Turn:
    """The tokens of a step of the sequence that is computed at the moment."""

    start: int = 0
    """Tokens before them."""
    new: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Their slots."""
    all: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Slots of all tokens up to the last of them."""


class PagedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values in our pages."""

    def __init__(self, turn: Turn, keys: Tensor, values: Tensor, *, is_sliding: bool) -> None:
        """`keys`, `values`: [slots, width]."""
        super().__init__()
        self.is_initialized = True
        self.is_sliding = is_sliding
        self._turn = turn
        self._pages = keys, values
        self._num_added = 0

    def begin(self) -> None:
        """Another sequence, or another step of it."""
        self._num_added = 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Adds [1, heads, N, size] each and gives those of all tokens."""
        self._num_added = key_states.shape[2]
        keys, values = (
            self._kept(pages, states)
            for pages, states in zip(self._pages, (key_states, value_states), strict=True)
        )
        return keys, values

    def _kept(self, pages: Tensor, states: Tensor) -> Tensor:
        heads, size = states.shape[1], states.shape[3]
        pages[self._turn.new, : heads * size] = states[0].transpose(0, 1).flatten(1)
        seen = pages.index_select(0, self._turn.all)[:, : heads * size]
        return seen.view(-1, heads, size).transpose(0, 1).unsqueeze(0)

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self._turn.start + self._num_added

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens that keys are given of, and how many before them are not."""
        return self.get_seq_length() + query_length, 0


class PagedStateLayer(LinearAttentionLayer, PagedLayer):  # type: ignore[misc]  # the same
    """A state, and keys and values in our pages."""

    is_compileable = False

    def __init__(
        self, turn: Turn, keys: Tensor, values: Tensor, *, number_of_states: int, is_sliding: bool
    ) -> None:
        PagedLayer.__init__(self, turn, keys, values, is_sliding=is_sliding)
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)


LayerMaker = Callable[[Turn, Tensor, Tensor], Any]
"""Makes a layer of a sequence's cache; of [slots, width] each where it has pages."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What a layer keeps of a sequence."""

    make: LayerMaker
    width: int
    """Numbers of a token's keys, or of its values if they are more; 0: none are kept in pages."""
    keeps_state: bool


def plan_layer(used: Any) -> LayerPlan | None:
    """Like one of transformers' own that a step was computed with; None for a kind that we do not
    know."""
    has_keys = getattr(used, "keys", None) is not None
    width = max(_width(used.keys), _width(used.values)) if has_keys else 0
    is_sliding = bool(getattr(used, "is_sliding", False))
    if type(used) in (DynamicLayer, DynamicSlidingWindowLayer):
        return LayerPlan(
            lambda turn, keys, values: PagedLayer(turn, keys, values, is_sliding=is_sliding),
            width,
            keeps_state=False,
        )
    if type(used) is DummyLayer:
        return LayerPlan(lambda *_: DummyLayer(), 0, keeps_state=False)
    if isinstance(used, LinearAttentionLayer):
        count = used.number_of_states
        if type(used) is LinearAttentionLayer:
            return LayerPlan(
                lambda *_: LinearAttentionLayer(number_of_states=count), 0, keeps_state=True
            )
        if type(used) is LinearAttentionAndFullAttentionLayer:
            return LayerPlan(
                lambda turn, keys, values: PagedStateLayer(
                    turn, keys, values, number_of_states=count, is_sliding=is_sliding
                ),
                width,
                keeps_state=True,
            )
    return None


def _width(states: Tensor) -> int:
    """Of [1, heads, N, size]."""
    return states.shape[1] * states.shape[3]


class SequenceCache(Cache):  # type: ignore[misc]  # the same
    """Of one sequence, or, where no layer keeps a state, of the one whose turn it is."""

    def begin(self) -> None:
        """Another step."""
        for layer in self.layers:
            if isinstance(layer, PagedLayer):
                layer.begin()


class PagedMemory:
    """Keys and values in our pages, states beside them. See Memory."""

    def __init__(self, plans: Sequence[LayerPlan], states: States[SequenceCache]) -> None:
        self._plans = plans
        self._states = states
        self._keeps_states = any(plan.keeps_state for plan in plans)
        self._turn = Turn()
        self._pages: list[tuple[Tensor, Tensor]] = []
        self._shared: SequenceCache | None = None

    def hold(self, cache: KvCache) -> None:
        """See Memory."""
        self._pages = [
            (layer[0].flatten(0, 1).flatten(1), layer[1].flatten(0, 1).flatten(1))
            for layer in cache.layers
        ]
        self._states.clear()
        self._shared = None if self._keeps_states else self._make()

    def begin(self, part: Part) -> Given:
        """See Memory."""
        self._turn.start, self._turn.new, self._turn.all = part.start, part.new_slots, part.slots
        cache = self._shared or self._states.take(part) or self._make()
        cache.begin()
        return Given(part.token_ids, {"past_key_values": cache, "use_cache": True})

    def end(self, part: Part, given: Given, output: Any) -> None:  # noqa: ARG002
        """See Memory."""
        if self._shared is None:
            self._states.put(part, given.arguments["past_key_values"])

    def _make(self) -> SequenceCache:
        pages = iter(self._pages)
        nothing = torch.empty(0), torch.empty(0)
        return SequenceCache(
            layers=[
                plan.make(self._turn, *(next(pages) if plan.width else nothing))
                for plan in self._plans
            ]
        )

"""The ways of computing a model of transformers one sequence after the other: what it remembers of
a sequence, and where that is kept."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.kinds import GroupedAttention
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.config import ForeignConfig, config_of
from trivet.backends.llm.foreign.looking import OtherWayError
from trivet.backends.llm.foreign.memories import Memory, OwnMemory, States, TokenMemory
from trivet.backends.llm.foreign.plan import Plan
from trivet.backends.llm.foreign.sequence_cache import LayerPlan, PagedMemory, plan_layer
from trivet.backends.llm.foreign.serial import SerialModel
from trivet.backends.llm.steps.runner import HeldModel

_NO_PAGES = GroupedAttention(1, 1, 1, rope=None)
"""Of a model that keeps nothing in pages: the engine counts its tokens in blocks, too."""
IN_PAGES = "one sequence after the other"
IN_OWN_CACHES = "one sequence after the other, with caches of its own beside ours"
NOWHERE = "without a cache: each step computes all tokens of a sequence anew, which is slow"
SINGLY = ", a token at a time behind its first step"


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What is kept of a sequence, and how."""

    name: str
    make: Callable[[], Memory]
    kinds: tuple[GroupedAttention, ...] = (_NO_PAGES,)
    """Of its pages."""
    keeps_states: bool = True


@dataclass(frozen=True, slots=True)
class SerialWays:
    """Of one model."""

    model: Any
    own_attention: str
    """Transformers' name of the attention that the model computes with."""
    prompt: Tensor
    """[tokens], to try it with."""
    vocabulary_size: int
    max_num_seqs: int

    def each(self) -> Iterator[Callable[[], Plan]]:
        """The fastest first; calling one raises OtherWayError where it cannot be."""
        for remembered in (self._pages, self._own):
            for singly in (False, True):
                yield from self._with(remembered, singly=singly)
        yield from self._with(self._tokens, singly=False)

    def _with(
        self, remembered: Callable[[], _Remembered], *, singly: bool
    ) -> Iterator[Callable[[], Plan]]:
        yield lambda: self._plan(remembered(), singly=singly, gives_positions=True)
        yield lambda: self._plan(remembered(), singly=singly, gives_positions=False)

    def _plan(self, remembered: _Remembered, *, singly: bool, gives_positions: bool) -> Plan:
        config: ForeignConfig = config_of(
            self.model.config,
            remembered.kinds,
            vocabulary_size=self.vocabulary_size,
            keeps_states=remembered.keeps_states,
        )
        if not gives_positions:
            # Tables of positions may have rows in front, for padding (RoBERTa).
            front = (getattr(self.model.config, "pad_token_id", None) or 0) + 1
            config = replace(config, max_positions=config.max_positions - front)

        def make(
            cache: KvCache,
            attention: Attention,  # noqa: ARG001  # its own is used
            adapters: AdapterBank | None = None,
        ) -> HeldModel:
            made = SerialModel(
                self.model,
                self.own_attention,
                remembered.make(),
                gives_positions=gives_positions,
                goes_on_singly=singly,
                adapters=adapters,
            )
            made.hold(cache)
            return made

        return Plan(remembered.name + SINGLY * singly, config, make)

    def _pages(self) -> _Remembered:
        """Keys and values in pages, and states of a size that does not grow."""
        used = DynamicCache(config=self.model.config)
        self._compute(past_key_values=used, use_cache=True)
        plans: list[LayerPlan] = []
        for at, layer in enumerate(used.layers):
            plan = plan_layer(layer)
            if plan is None:
                raise OtherWayError(f"layer {at} keeps a {type(layer).__name__}")
            plans.append(plan)
        if not any(plan.width or plan.keeps_state for plan in plans):
            raise OtherWayError("no layer keeps anything in transformers' cache")
        kinds = [GroupedAttention(1, 1, plan.width, rope=None) for plan in plans if plan.width]
        return _Remembered(
            IN_PAGES,
            lambda: PagedMemory(plans, States(self.max_num_seqs)),
            tuple(kinds) or (_NO_PAGES,),
            any(plan.keeps_state for plan in plans),
        )

    def _own(self) -> _Remembered:
        """What the model makes itself."""
        output = self._compute(use_cache=True)
        name = next((name for name in OwnMemory.NAMES if getattr(output, name, None)), None)
        if name is None:
            raise OtherWayError("it gives no cache")
        half = len(self.prompt) // 2
        shorter = self._compute(half, use_cache=True)
        numbers = [_num_numbers(getattr(each, name), set()) for each in (shorter, output)]
        # As much as a token adds is charged for it, so that the blocks that there are bound it.
        width = max(-(-(numbers[1] - numbers[0]) // (len(self.prompt) - half) // 2), 1)
        return _Remembered(
            IN_OWN_CACHES,
            lambda: OwnMemory(name, States(self.max_num_seqs)),
            (GroupedAttention(1, 1, width, rope=None),),
        )

    def _tokens(self) -> _Remembered:
        """Nothing but tokens."""
        return _Remembered(NOWHERE, lambda: TokenMemory(States(self.max_num_seqs)))

    def _compute(self, num_tokens: int | None = None, **arguments: Any) -> Any:
        bridge.use(self.model, self.own_attention)
        return self.model(input_ids=self.prompt[None, :num_tokens], **arguments)


def _num_numbers(kept: Any, seen: set[int]) -> int:
    """In all tensors of an object."""
    if id(kept) in seen:
        return 0
    seen.add(id(kept))
    if isinstance(kept, Tensor):
        return kept.numel()
    if isinstance(kept, Mapping):
        inner = list(kept.values())
    elif isinstance(kept, list | tuple):
        inner = list(kept)
    else:
        inner = list(getattr(kept, "__dict__", {}).values())
    return sum(_num_numbers(each, seen) for each in inner)

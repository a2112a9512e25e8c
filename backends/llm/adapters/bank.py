"""The adapters over one model that can be computed now, and those of the step under way."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.adapters.adapter import Adapter, AdapterFiles, TokenTable
from trivet.backends.llm.adapters.places import Place, Places
from trivet.backends.llm.adapters.reading import read_adapter
from trivet.backends.llm.adapters.stack import Stack, StackedPlace, stack
from trivet.backends.llm.matrices.matrix import Product

NO_ADAPTER = 0
"""The slot of rows of the base alone."""
MOST_WASTE = 2
"""A stack is used again for some of its adapters while these have half its rank: making another one
copies all of theirs."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnRows:
    """Rows of a step whose adapter changes the embedding or the head."""

    table: TokenTable
    vocabulary_size: int
    rows: Tensor
    """int64: their places."""


@dataclass(slots=True, eq=False)
class StepAdapters:
    """Those of one step."""

    stack: Stack
    slots: Tensor
    """int32 [N]: each token's."""
    is_of_one: bool
    """Whether the stack has one adapter and all tokens are its."""
    embeddings: list[OwnRows]
    heads: list[OwnRows]
    """Of the rows that give logits."""
    sizes: Tensor | None
    """int64 [R]: the vocabulary of each row that gives logits; None: all have the base's."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """By the layout of a place: which columns are not of a token's adapter."""
    tokens: Tensor | None = None
    """int64: those that the next products are of; None: all."""

    @property
    def num_rows(self) -> int:
        """Of the next products."""
        return len(self.slots if self.tokens is None else self.tokens)

    def add(self, place: Place, rows: Tensor, product: Tensor) -> None:
        """Adds to a product of `rows` what their adapters change."""
        stacked = self.stack.places.get(place.index)
        if stacked is None:
            return
        lowered = rows @ stacked.down
        if not self.is_of_one:
            lowered.masked_fill_(self.others(stacked), 0.0)
        for part in stacked.parts:
            product[:, part.outputs].addmm_(lowered[:, part.columns], part.up)

    def others(self, stacked: StackedPlace) -> Tensor:
        """bool [N, K]: which columns are of another adapter than a token's."""
        if self.tokens is not None:
            return self.slots[self.tokens].unsqueeze(1) != stacked.owners
        key = id(stacked.owners)
        mask = self.masks.get(key)
        if mask is None:
            mask = self.masks[key] = self.slots.unsqueeze(1) != stacked.owners
        return mask


class AdaptedProduct:
    """A product of the base, to which a step's adapters add theirs."""

    __slots__ = ("_place", "bank", "base")

    def __init__(self, bank: "AdapterBank", place: Place, base: Product) -> None:
        self.bank, self.base = bank, base
        self._place = place

    def __call__(self, rows: Tensor) -> Tensor:
        """See Product."""
        made = self.base(rows)
        if self.bank.step is not None:
            self.bank.step.add(self._place, rows, made)
        return made


class AdapterBank:
    """Owned by the engine's thread, but `places`, which is complete once the model is loaded."""

    def __init__(self, dtype: torch.dtype, device: torch.device, max_rank: int) -> None:
        self.places = Places()
        self.dtype, self.device, self.max_rank = dtype, device, max_rank
        self.budget: int | None = None
        """Bytes of the device's memory that all may take; None: it is not counted."""
        self.step: StepAdapters | None = None
        """None: all rows are the base's."""
        self._adapters: dict[int, Adapter] = {}
        self._stack: Stack | None = None

    def read(self, files: AdapterFiles) -> Adapter:
        """What is in some files, on the host. Any thread may call. Raises LoadFailed."""
        adapter = read_adapter(files, self.places, self.max_rank, self.dtype)
        if self.budget is not None and adapter.nbytes > self.budget:
            raise LoadFailed(
                f"with its part of a step's stack it takes {adapter.nbytes} bytes of the GPU's "
                f"memory, and adapters have {self.budget} in all (model parameters "
                "gpu_memory_utilization, kv_cache_bytes and max_loras)"
            )
        return adapter.brought(Tensor.pin_memory) if self.device.type == "cuda" else adapter

    def put(self, slot: int, adapter: Adapter) -> None:
        """An adapter can be computed from now on."""
        self._adapters[slot] = adapter.on(self.device)
        self._forget(slot)

    def drop(self, slot: int) -> None:
        """Nobody asks for it any more."""
        self._adapters.pop(slot, None)
        self._forget(slot)

    def has(self, slot: int) -> bool:
        """Whether somebody's adapter is there."""
        return slot in self._adapters

    def _forget(self, slot: int) -> None:
        if self._stack is not None and slot in self._stack.slots:
            self._stack = None

    def focus(self, tokens: Tensor | None) -> None:
        """The next products are of these tokens of a step; None: of all."""
        if self.step is not None:
            self.step.tokens = tokens

    # -- a step --------------------------------------------------------------------------------

    def begin(self, slots: np.ndarray | None, starts: np.ndarray, rows: list[int]) -> None:
        """What follows is the step of these sequences: their slots, where their tokens begin, and
        the tokens whose logits are wanted."""
        if slots is None:
            self.step = None
            return
        of_tokens = np.repeat(slots, np.diff(starts))
        of_rows = of_tokens[rows]
        used = {slot: self._adapters[slot] for slot in sorted({*slots.tolist()} - {NO_ADAPTER})}
        self.step = StepAdapters(
            self._stacked(used),
            torch.from_numpy(of_tokens.astype(np.int32)).to(self.device),
            len(used) == 1 and bool(slots.all()),
            self._own(used, of_tokens, lambda adapter: adapter.embedding),
            self._own(used, of_rows, lambda adapter: adapter.head),
            self._sizes(used, of_rows),
        )
        if len(self.step.stack.slots) > 1:
            self.step.is_of_one = False

    def _stacked(self, used: dict[int, Adapter]) -> Stack:
        kept = self._stack
        rank = sum(adapter.rank for adapter in used.values())
        if kept is None or not kept.slots >= used.keys() or kept.rank > MOST_WASTE * rank:
            # The last one goes first: there is room for one.
            kept = self._stack = self.step = None
            kept = self._stack = stack(used, self.places.all)
        return kept

    def _own(
        self,
        used: dict[int, Adapter],
        slots: np.ndarray,
        table_of: Callable[[Adapter], TokenTable | None],
    ) -> list[OwnRows]:
        found = []
        for slot, adapter in used.items():
            table = table_of(adapter)
            rows = np.flatnonzero(slots == slot) if table is not None else ()
            if table is not None and len(rows):
                places = torch.from_numpy(np.asarray(rows)).to(self.device)
                found.append(OwnRows(table, adapter.vocabulary_size, places))
        return found

    def _sizes(self, used: dict[int, Adapter], slots: np.ndarray) -> Tensor | None:
        base = self.places.vocabulary_size
        larger = {s: a.vocabulary_size for s, a in used.items() if a.vocabulary_size > base}
        if not larger:
            return None
        sizes = [larger.get(slot, base) for slot in slots.tolist()]
        return torch.tensor(sizes, device=self.device)

    def embed(self, token_ids: Tensor, look_up: Callable[[Tensor], Tensor]) -> Tensor:
        """States of a step's tokens; `look_up`: of the base."""
        step = self.step
        if step is None or not step.embeddings:
            return look_up(token_ids)
        states = look_up(token_ids.clamp_max(self.places.vocabulary_size - 1))
        for own in step.embeddings:
            ids = token_ids[own.rows]
            states[own.rows] = own.table.embedded(ids, states[own.rows])
        return states

    def score(self, states: Tensor, logits: Tensor) -> Tensor:
        """Logits of a step's rows, whose states these are; `logits`: of the base, perhaps changed
        in place. What is beyond a row's vocabulary is for `bar`."""
        step = self.step
        if step is None or not step.heads:
            return logits
        missing = max(own.vocabulary_size for own in step.heads) - logits.shape[1]
        if missing > 0:
            logits = torch.nn.functional.pad(logits, (0, missing))
        for own in step.heads:
            base = logits[own.rows, : self.places.vocabulary_size]
            scored = own.table.scored(states[own.rows].to(self.dtype), base.to(self.dtype))
            logits[own.rows, : scored.shape[1]] = scored.to(logits.dtype)
        return logits

    def bar(self, logits: Tensor) -> Tensor:
        """Logits of a step's rows, of which none takes a token that its adapter has not."""
        step = self.step
        if step is not None and step.sizes is not None:
            tokens = torch.arange(logits.shape[1], device=logits.device)
            logits = logits.masked_fill(tokens >= step.sizes.unsqueeze(1), -torch.inf)
        return logits

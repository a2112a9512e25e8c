"""What a model of transformers remembers of a sequence's earlier tokens, where it is computed one
sequence after the other. Pages are in `sequence_cache`; what is here lies beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from trivet.backends.llm.attention.kv_cache import KvCache

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one sequence that are computed at once."""

    token_ids: Tensor
    """[N]."""
    start: int
    """Tokens before them."""
    first_block: int
    """Of the sequence; where states are kept, sequences have no blocks in common."""
    new_blocks: Sequence[int]
    """In which these tokens lie."""
    new_slots: Tensor
    """[N]: of these tokens in the cache."""
    slots: Tensor
    """[start + N]: of all tokens up to the last."""

    @property
    def end(self) -> int:
        """Tokens up to the last of them."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Given:
    """What the model is called with."""

    token_ids: Tensor
    """The part's, perhaps behind earlier ones."""
    arguments: Mapping[str, Any]


class Memory(Protocol):
    """Owned by the engine's thread."""

    def hold(self, cache: KvCache) -> None:
        """Over this cache from now on; what sequences had is forgotten."""

    def begin(self, part: Part) -> Given:
        """A part is about to be computed."""

    def end(self, part: Part, given: Given, output: Any) -> None:
        """It is."""


class States(Generic[T]):
    """Of sequences, each with the number of tokens that it has come from. A sequence that ends is
    not told of: a state goes when a block of its sequence is another's, so that all together are of
    no more tokens than the blocks hold; and of many short ones those stay that were used last, as
    many as run at a time."""

    def __init__(self, max_num_states: int) -> None:
        self._max_num_states = max_num_states
        self._of: dict[int, tuple[int, T]] = {}
        """By first block, as are the next."""
        self._blocks: dict[int, list[int]] = {}
        self._owners: dict[int, int] = {}
        """Whose a block is: the reverse of `_blocks`."""

    def clear(self) -> None:
        """Forgets all."""
        self._of.clear()
        self._blocks.clear()
        self._owners.clear()

    def take(self, part: Part) -> T | None:
        """What a sequence has before a part of it; None before its first. Raises RuntimeError where
        it is not at hand: whatever came of that would be wrong."""
        if part.start == 0:
            self._forget(part.first_block)
            return None
        num_tokens, state = self._of.pop(part.first_block, (0, None))
        if num_tokens != part.start:
            raise RuntimeError(
                f"a sequence of {part.start} tokens goes on, of which a state after {num_tokens} "
                "is at hand"
            )
        return state

    def put(self, part: Part, state: T) -> None:
        """What it has behind the part."""
        first = part.first_block
        for block in part.new_blocks:
            owner = self._owners.get(block)
            if owner == first:
                continue
            if owner is not None:
                self._forget(owner)
            self._owners[block] = first
            self._blocks.setdefault(first, []).append(block)
        self._of[first] = part.end, state
        if len(self._of) > self._max_num_states:
            self._forget(next(iter(self._of)))

    def _forget(self, first_block: int) -> None:
        self._of.pop(first_block, None)
        for block in self._blocks.pop(first_block, ()):
            del self._owners[block]


class OwnMemory:
    """Whatever the model makes at a sequence's first step and wants at the next. See Memory."""

    NAMES = ("past_key_values", "cache_params", "state", "mems")
    """Under which models take it and give it."""

    def __init__(self, name: str, states: States[Any]) -> None:
        self._name = name
        self._states = states

    def hold(self, cache: KvCache) -> None:  # noqa: ARG002
        """See Memory."""
        self._states.clear()

    def begin(self, part: Part) -> Given:
        """See Memory."""
        state = self._states.take(part)
        return Given(part.token_ids, {self._name: state, "use_cache": True})

    def end(self, part: Part, given: Given, output: Any) -> None:  # noqa: ARG002
        """See Memory."""
        self._states.put(part, getattr(output, self._name))


class TokenMemory:
    """The tokens themselves: a model without a cache computes all of them anew. See Memory."""

    def __init__(self, states: States[Tensor]) -> None:
        self._states = states

    def hold(self, cache: KvCache) -> None:  # noqa: ARG002
        """See Memory."""
        self._states.clear()

    def begin(self, part: Part) -> Given:
        """See Memory."""
        earlier = self._states.take(part)
        ids = part.token_ids if earlier is None else torch.cat((earlier, part.token_ids))
        return Given(ids, {"use_cache": False})

    def end(self, part: Part, given: Given, output: Any) -> None:  # noqa: ARG002
        """See Memory."""
        self._states.put(part, given.token_ids.clone())

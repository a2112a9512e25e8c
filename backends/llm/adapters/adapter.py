"""One adapter, read and checked, as tensors on the model's device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What is added to a product: (rows x down) x up."""

    down: Tensor
    """[rank, inputs]."""
    up: Tensor
    """[outputs, rank], scaled, in the order in which outputs are computed."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """What an adapter makes of the embedding, or of the head: first another table, then a change of
    low rank, then rows of single tokens."""

    table: Tensor | None = None
    """[tokens, hidden], of perhaps more tokens than the base has."""
    low_rank: LowRank | None = None
    """Of the head as a product; of the embedding with `down` looked up in: [tokens, rank]."""
    token_ids: Tensor | None = None
    token_rows: Tensor | None = None
    """[tokens, hidden]: replace those of `token_ids`."""

    def embedded(self, ids: Tensor, base: Tensor) -> Tensor:
        """States [N, hidden] of some tokens, for which the base has `base`."""
        states = base if self.table is None else functional.embedding(ids, self.table)
        if self.low_rank is not None:
            states = states + functional.embedding(ids, self.low_rank.down) @ self.low_rank.up.t()
        if self.token_ids is not None and self.token_rows is not None:
            is_one = ids.unsqueeze(1) == self.token_ids
            own = self.token_rows[is_one.int().argmax(dim=1)]
            states = torch.where(is_one.any(dim=1, keepdim=True), own, states)
        return states

    def scored(self, states: Tensor, base: Tensor) -> Tensor:
        """Logits [N, tokens] of states, for which the base has `base`."""
        logits = base if self.table is None else states @ self.table.t()
        if self.low_rank is not None:
            logits = logits + (states @ self.low_rank.down.t()) @ self.low_rank.up.t()
        if self.token_ids is not None and self.token_rows is not None:
            logits = logits.index_copy(1, self.token_ids, states @ self.token_rows.t())
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter over one model."""

    matrices: Mapping[tuple[int, int], LowRank]
    """By the number of a place and of a part of it."""
    embedding: TokenTable | None
    head: TokenTable | None
    vocabulary_size: int
    """Of the base, or what the adapter makes of it."""
    rank: int
    """The largest."""
    stamps: tuple[tuple[int, int, int], ...] = ()
    """Of the files: size in bytes, modification time in ns, inode."""

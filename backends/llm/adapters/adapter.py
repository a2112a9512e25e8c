"""One adapter, read and checked, as tensors on the model's device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Bring = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What is added to a product: (rows x down) x up."""

    down: Tensor
    """[rank, inputs]."""
    up: Tensor
    """[outputs, rank], scaled, in the order in which outputs are computed."""

    @property
    def nbytes(self) -> int:
        """Of both."""
        return self.down.nbytes + self.up.nbytes

    def brought(self, bring: Bring) -> "LowRank":
        """Elsewhere."""
        return LowRank(bring(self.down), bring(self.up))


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

    @property
    def nbytes(self) -> int:
        """Of all that it has."""
        parts = (self.table, self.low_rank, self.token_ids, self.token_rows)
        return sum(part.nbytes for part in parts if part is not None)

    def brought(self, bring: Bring) -> "TokenTable":
        """Elsewhere."""
        return TokenTable(
            None if self.table is None else bring(self.table),
            None if self.low_rank is None else self.low_rank.brought(bring),
            None if self.token_ids is None else bring(self.token_ids),
            None if self.token_rows is None else bring(self.token_rows),
        )

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


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What lies in an adapter's folder."""

    document: Mapping[str, Any]
    """Of its config."""
    weights: bytes
    """A safetensors file."""
    stamps: tuple[tuple[int, int, int], ...] = ()
    """Of both: size in bytes, modification time in ns, inode."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter over one model, or over a rank's part of it."""

    matrices: Mapping[tuple[int, int], LowRank]
    """By the number of a place and of a part of it."""
    embedding: TokenTable | None
    head: TokenTable | None
    vocabulary_size: int
    """Of the base, or what the adapter makes of it."""
    rank: int
    """The largest."""
    files: AdapterFiles

    @property
    def nbytes(self) -> int:
        """What it takes in a slot, and once more in a step's stack."""
        tables = sum(each.nbytes for each in (self.embedding, self.head) if each is not None)
        return 2 * sum(each.nbytes for each in self.matrices.values()) + tables

    def brought(self, bring: Bring) -> "Adapter":
        """Elsewhere."""
        return replace(
            self,
            matrices={key: each.brought(bring) for key, each in self.matrices.items()},
            embedding=None if self.embedding is None else self.embedding.brought(bring),
            head=None if self.head is None else self.head.brought(bring),
        )

    def on(self, device: torch.device) -> "Adapter":
        """On a device, without its files. From memory that is pinned nobody waits."""
        there = self.brought(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(there, files=replace(self.files, document={}, weights=b""))

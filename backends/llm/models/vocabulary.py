"""Tokens to states and states to logits, of which each rank may hold a part of the vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.models.linear import Weight, linear
from trivet.backends.llm.ranks.group import Ranks


class Vocabulary:
    """Embedding and head. Rank r of several holds the r-th part, [size, hidden]."""

    def __init__(self, embedding: Tensor, head: Weight, ranks: Ranks, total: int) -> None:
        """`total`: tokens of the whole vocabulary, whose last part may be filled up."""
        self._embedding = embedding
        self._head = linear(head)
        self._ranks = ranks
        self._total = total
        self._first = ranks.rank * len(embedding)

    def embed(self, token_ids: Tensor) -> Tensor:
        """[N, hidden]."""
        if self._ranks.size == 1:
            return functional.embedding(token_ids, self._embedding)
        places = token_ids - self._first
        is_mine = (places >= 0) & (places < len(self._embedding))
        found = functional.embedding(torch.where(is_mine, places, 0), self._embedding)
        return self._ranks.sum(found.masked_fill(~is_mine.unsqueeze(-1), 0.0))

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, vocabulary]."""
        return self._ranks.joined(self._head(states))[:, : self._total].float()

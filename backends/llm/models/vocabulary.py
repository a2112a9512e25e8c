"""Tokens to states and states to logits, of which each rank may hold a part of the vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import Multiplied
from trivet.backends.llm.weights.taking import Weights


def take_embedding(weights: Weights) -> Tensor:
    """[vocabulary, hidden], of this rank's part."""
    return weights.table(Role.EMBEDDING, weights.whole.vocabulary_size)


def take_head(weights: Weights, embedding: Tensor) -> Multiplied:
    """[vocabulary, hidden], of this rank's part; the last rank's may have fewer tokens."""
    whole = weights.whole
    if whole.ties_embeddings:
        return Dense(embedding)
    return weights.matrix({Role.HEAD: whole.vocabulary_size}, whole.hidden_size)


class Vocabulary:
    """Embedding and head. Rank r of several holds the r-th part."""

    def __init__(self, weights: Weights) -> None:
        """Takes both."""
        self._embedding = take_embedding(weights)
        head = take_head(weights, self._embedding)
        self._missing = len(self._embedding) - head.shape[0]
        """Logits to fill this rank's part up with, so that all have as many."""
        whole = weights.whole
        bias = weights.bias({Role.HEAD: whole.vocabulary_size}) if whole.has_head_bias else None
        self._head = head.product(bias)
        self._ranks = weights.ranks
        self._total = weights.whole.vocabulary_size
        self._first = weights.ranks.rank * len(self._embedding)
        self._adapters = weights.adapters

    @property
    def dtype(self) -> torch.dtype:
        """What states are of."""
        return self._embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where all is computed."""
        return self._embedding.device

    def embed(self, token_ids: Tensor) -> Tensor:
        """[N, hidden]."""
        if self._adapters is not None:
            return self._adapters.embed(token_ids, self._look_up)
        return self._look_up(token_ids)

    def _look_up(self, token_ids: Tensor) -> Tensor:
        if self._ranks.size == 1:
            return functional.embedding(token_ids, self._embedding)
        places = token_ids - self._first
        is_mine = (places >= 0) & (places < len(self._embedding))
        found = functional.embedding(torch.where(is_mine, places, 0), self._embedding)
        return self._ranks.sum(found.masked_fill(~is_mine.unsqueeze(-1), 0.0))

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, vocabulary]."""
        logits = self._head(states)
        if self._missing:
            logits = functional.pad(logits, (0, self._missing))
        logits = self._ranks.joined(logits)[:, : self._total]
        if self._adapters is not None:
            logits = self._adapters.score(states, logits)
        return logits.float()

"""Tokens to states and states to logits, of which each rank may hold a part of the vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import OUTPUTS, Matrix, Multiplied
from trivet.backends.llm.weights.taking import Weights


def take_embedding(weights: Weights) -> Matrix:
    """[vocabulary, hidden], of this rank's part; the last rank's may have fewer tokens."""
    return weights.embedding()


def take_head(weights: Weights, embedding: Matrix) -> Multiplied:
    """The same; what states are multiplied with."""
    whole = weights.whole
    if whole.ties_embeddings:
        return embedding
    return weights.matrix({Role.HEAD: whole.vocabulary_size}, whole.hidden_size)


class Vocabulary:
    """Embedding and head. Rank r of several holds the r-th part."""

    def __init__(self, weights: Weights) -> None:
        """Takes both."""
        self._embedding = take_embedding(weights)
        head = take_head(weights, self._embedding)
        each = weights.config.vocabulary_size
        self._missing = each - head.shape[OUTPUTS]
        """Logits to fill this rank's part up with, so that all have as many."""
        whole = weights.whole
        bias = weights.bias({Role.HEAD: whole.vocabulary_size}) if whole.has_head_bias else None
        self._head = head.product(bias)
        self._ranks = weights.ranks
        self._total = weights.whole.vocabulary_size
        self._first = weights.ranks.rank * each
        self._adapters = weights.adapters
        self._data = self._embedding.data if isinstance(self._embedding, Dense) else None

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
            return self._rows(token_ids)
        places = token_ids - self._first
        is_mine = (places >= 0) & (places < self._embedding.shape[OUTPUTS])
        found = self._rows(torch.where(is_mine, places, 0))
        return self._ranks.sum(found.masked_fill(~is_mine.unsqueeze(-1), 0.0))

    def _rows(self, places: Tensor) -> Tensor:
        if self._data is not None:
            return functional.embedding(places, self._data)
        return self._embedding.reordered(places).expanded()

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, vocabulary]."""
        logits = self._head(states)
        if self._missing:
            logits = functional.pad(logits, (0, self._missing))
        logits = self._ranks.joined(logits)[:, : self._total]
        if self._adapters is not None:
            logits = self._adapters.score(states, logits)
        return logits.float()

"""Tokens to states and states to logits, of which each rank may hold a part of the vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import OUTPUTS, Matrix, Multiplied, Product
from trivet.backends.llm.weights.taking import Weights


def take_embedding(weights: Weights) -> Matrix:
    """[vocabulary, hidden], of this rank's part; the last rank's may have fewer tokens."""
    return weights.embedding()


def take_head(weights: Weights, embedding: Matrix | None) -> Multiplied:
    """The same; what states are multiplied with."""
    whole = weights.whole
    if whole.ties_embeddings and embedding is not None:
        return embedding
    return weights.matrix({Role.HEAD: whole.vocabulary_size}, whole.hidden_size)


def handed_on(inputs: StepInputs) -> Tensor:
    """What a later stage begins with in place of tokens."""
    assert inputs.states is not None, "a later stage gets states"
    return inputs.states


class Vocabulary:
    """Embedding and head. Rank r of several holds the r-th part; of several stages the first embeds
    and the last has the head, so both hold a matrix that is both."""

    def __init__(self, weights: Weights) -> None:
        """Takes what its stage has."""
        whole = weights.whole
        each = weights.config.vocabulary_size
        self._ranks = weights.ranks
        self._total = whole.vocabulary_size
        self._first = weights.ranks.rank * each
        self._adapters = weights.adapters
        self._head: Product | None = None
        embedding = None
        if whole.is_first or (whole.is_last and whole.ties_embeddings):
            embedding = take_embedding(weights)
        if whole.is_last:
            head = take_head(weights, embedding)
            self._missing = each - head.shape[OUTPUTS]
            """Logits to fill this rank's part up with, so that all have as many."""
            bias = weights.bias({Role.HEAD: whole.vocabulary_size}) if whole.has_head_bias else None
            self._head = head.product(bias)
        self._embedding = embedding
        self._data = embedding.data if isinstance(embedding, Dense) else None
        self.dtype = weights.dtype if embedding is None else embedding.dtype
        """What states are of."""
        self.device = weights.device if embedding is None else embedding.device
        """Where all is computed."""

    def begin(self, inputs: StepInputs) -> Tensor:
        """What a first stage begins with."""
        return self.embed(inputs.token_ids)

    def embed(self, token_ids: Tensor) -> Tensor:
        """[N, hidden]."""
        if self._adapters is not None:
            return self._adapters.embed(token_ids, self._look_up)
        return self._look_up(token_ids)

    def _look_up(self, token_ids: Tensor) -> Tensor:
        if self._ranks.size == 1:
            return self._rows(token_ids)
        places = token_ids - self._first
        assert self._embedding is not None
        is_mine = (places >= 0) & (places < self._embedding.shape[OUTPUTS])
        found = self._rows(torch.where(is_mine, places, 0))
        return self._ranks.sum(found.masked_fill(~is_mine.unsqueeze(-1), 0.0))

    def _rows(self, places: Tensor) -> Tensor:
        if self._data is not None:
            return functional.embedding(places, self._data)
        assert self._embedding is not None
        return self._embedding.reordered(places).expanded()

    def logits(self, states: Tensor) -> Tensor:
        """float32 [N, vocabulary]."""
        assert self._head is not None
        logits = self._head(states)
        if self._missing:
            logits = functional.pad(logits, (0, self._missing))
        logits = self._ranks.joined(logits)[:, : self._total]
        if self._adapters is not None:
            logits = self._adapters.score(states, logits)
        return logits.float()

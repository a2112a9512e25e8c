"""A model computed by the compiled step; models/torch_decoder.py says what it must give."""

import ctypes

import torch
from torch import Tensor

from trivet.backends.llm.adapters.bank import AdapterBank, StepAdapters
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import Matrix
from trivet.backends.llm.models.parts import take_norm
from trivet.backends.llm.models.vocabulary import take_embedding, take_head
from trivet.backends.llm.native.adding import Adding
from trivet.backends.llm.native.layers import Taken
from trivet.backends.llm.native.library import Native
from trivet.backends.llm.native.matrices import PackedMatrix, can_stay_packed
from trivet.backends.llm.native.packing import numbers_of
from trivet.backends.llm.native.structures import CLayer, CModel, CStep
from trivet.backends.llm.weights.taking import Weights


class NativeModel:
    """A decoder over the paged cache. Owned by the engine's thread."""

    def __init__(self, weights: Weights, cache: KvCache, native: Native) -> None:
        """`kinds.why_not` must have said nothing. Raises LoadFailed as TorchDecoder does."""
        config = weights.config
        self._functions = native.functions
        self._vocabulary = config.vocabulary_size
        taken, embedding = Taken(weights), take_embedding(weights)
        self._model = _model(weights, taken, embedding)
        self._model.block_size = cache.block_size
        self._model.has_amx, self._model.threads = native.has_amx, torch.get_num_threads()
        layers = [taken.layer(index, cache) for index in range(len(cache.layers))]
        weights.refuse_rest()
        self._adapters = weights.adapters
        self._adding = Adding(taken.places)
        # Not `taken`: it holds the files' weights, of which these are in the order of products.
        self._kept = taken.kept
        self._embedding = None if self._adapters is None else embedding
        self._multiplier, self._cap = config.logit_multiplier, config.logit_cap
        self._layers = (CLayer * len(layers))(*layers)
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        num_tokens, num_samples = len(inputs.token_ids), len(inputs.sample_rows)
        logits = torch.empty(num_samples, self._model.vocabulary)
        num_sequences, most_blocks = inputs.block_tables.shape
        tensors = (
            inputs.token_ids, inputs.positions, inputs.slot_mapping, inputs.query_starts,
            inputs.sequence_lengths, inputs.block_tables.contiguous(), inputs.sample_rows, logits,
            self._memory(num_tokens, num_samples),
        )  # fmt: skip
        addresses = (tensor.data_ptr() for tensor in tensors)
        step = CStep(num_tokens, num_sequences, most_blocks, num_samples, *addresses)
        if self._adapters is not None and self._adapters.step is not None:
            return self._adapted(self._adapters, self._adapters.step, step, inputs, logits)
        self._decode(step)
        return logits[:, : self._vocabulary]

    def _decode(self, step: CStep) -> None:
        self._functions.decode(ctypes.byref(self._model), self._layers, ctypes.byref(step))

    def _adapted(
        self,
        bank: AdapterBank,
        adapters: StepAdapters,
        step: CStep,
        inputs: StepInputs,
        logits: Tensor,
    ) -> Tensor:
        """A step of which some rows have adapters."""
        self._adding.fill(step, adapters)
        if adapters.embeddings:
            embedded = bank.embed(inputs.token_ids, self._look_up).contiguous()
            step.embedded = embedded.data_ptr()
        if not adapters.heads:
            self._decode(step)
            return logits[:, : self._vocabulary]
        states = torch.empty(len(logits), self._model.hidden, dtype=torch.bfloat16)
        step.states = states.data_ptr()
        # What becomes of logits comes behind the heads that adapters bring.
        self._model.logit_multiplier, self._model.logit_cap = 1.0, 0.0
        self._decode(step)
        self._model.logit_multiplier, self._model.logit_cap = self._multiplier, self._cap
        scored = bank.score(states, logits[:, : self._vocabulary]) * self._multiplier
        return torch.tanh(scored / self._cap) * self._cap if self._cap else scored

    def _look_up(self, token_ids: Tensor) -> Tensor:
        assert self._embedding is not None
        return self._embedding.reordered(token_ids).expanded().to(torch.bfloat16)

    def _memory(self, num_tokens: int, num_samples: int) -> Tensor:
        size = self._functions.scratch_bytes(
            ctypes.byref(self._model), self._layers, num_tokens, num_samples
        )
        if len(self._scratch) < size:
            # Zeroed, for rows that only fill up a tile are computed with, too.
            self._scratch = torch.zeros(size, dtype=torch.uint8)
        return self._scratch


def _model(weights: Weights, taken: Taken, embedding: Matrix) -> CModel:
    config = weights.config
    head = PackedMatrix(take_head(weights, embedding))
    # Rounded to what states are of, as models that have a multiplier were trained.
    multiplier = torch.tensor(config.embedding_multiplier).bfloat16()
    made = CModel(
        hidden=config.hidden_size, layers=config.num_layers, vocabulary=head.num_columns,
        first_position=config.first_position, embedding_multiplier=float(multiplier),
        logit_multiplier=config.logit_multiplier, logit_cap=config.logit_cap,
        head=taken.address_of(head),
        norm=taken.norm(config.norm, take_norm(weights, config.norm, Role.FINAL_NORM)),
    )  # fmt: skip
    if isinstance(embedding, Grouped) and can_stay_packed(embedding):
        is_tied = config.ties_embeddings
        made.embedding_codes = made.head if is_tied else taken.matrix(embedding)
    else:
        made.embedding = taken.address(numbers_of(embedding).contiguous())
    if config.has_head_bias:
        made.head_bias = taken.bias(weights.bias({Role.HEAD: config.vocabulary_size}))
    if config.has_learned_positions:
        rows = config.max_positions + config.first_position
        made.places = taken.address(weights.table(Role.POSITIONS, rows).contiguous())
    if config.embedding_norm is not None:
        role = Role.EMBEDDING_NORM
        made.embedding_norm = taken.norm(
            config.embedding_norm, take_norm(weights, config.embedding_norm, role)
        )
    return made

"""Computes steps with a model on a device."""

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.device.border import listed, note_wait
from trivet.backends.llm.device.free_cores import FreeCores
from trivet.backends.llm.device.group import Alone, Ranks
from trivet.backends.llm.device.staging import HostStaging, Staging, step_arrays
from trivet.backends.llm.sampling.draws import Draws, chosen
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.scheduling.sequence import PENDING


class RowFailedError(RuntimeError):
    """A sequence of a step cannot be computed, while the others can: raised from what was wrong
    with it."""

    def __init__(self, row: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.row = row
        """Its place in the step."""
        self.is_of_memory = isinstance(error, torch.OutOfMemoryError)


class Model(Protocol):
    """A loaded model over its cache, or one of the stages that compute it."""

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`; of a stage that is not the last
        states, [N, hidden]. Raises RowFailedError where it knows which sequence cannot be computed.
        """


class HeldModel(Model, Protocol):
    """A Model whose cache comes once its size is known."""

    @property
    def is_recordable(self) -> bool:
        """Whether steps of one shape do the same on the device and ask it nothing."""

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""


class TorchRunner:
    """Owned by the engine's thread. Steps are computed in the order in which they are started."""

    def __init__(
        self,
        model: Model,
        staging: Staging | None = None,
        *,
        max_num_seqs: int = 0,
        ranks: Ranks | None = None,
        adapters: AdapterBank | None = None,
        cores: FreeCores | None = None,
    ) -> None:
        """`max_num_seqs`: how many sequences keep their last token on the device; 0: `launch` is
        not used. `ranks`: rank 0 chooses the tokens for all. `adapters`: over the model.
        `cores`: that compute; None: always the same."""
        self._cores = cores
        self._ranks = ranks or Alone()
        self._model = model
        self._adapters = adapters
        self._staging = staging or HostStaging()
        self._last_tokens: Tensor | None = None
        self._max_num_seqs = max_num_seqs

    @torch.no_grad()  # inference mode would forbid the sampler to change the logits
    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """Logits, float32 [len(rows), vocabulary] on the model's device, of the step's tokens at
        these places."""
        if self._cores is not None:
            self._cores.look(time.monotonic())
        inputs = StepInputs(*self._staging.bring(step_arrays(arrays, rows)))
        return self._forward(arrays, rows, inputs)

    def _forward(self, arrays: StepArrays, rows: list[int], inputs: StepInputs) -> Tensor:
        adapters = self._adapters
        if adapters is None:
            return self._model.forward(inputs)
        adapters.begin(arrays.adapters, arrays.query_starts, rows)
        return adapters.bar(self._model.forward(inputs))

    @torch.no_grad()
    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        """See Launcher."""
        given = step_arrays(arrays, rows)
        tensors = self._staging.bring([*given, *draws.arrays])
        token_ids, *others = tensors[: len(given)]
        drawing = tensors[len(given) :]
        last_tokens = self._tokens_on(token_ids.device)
        # An undecided token gives a row that nobody reads, of a token that exists.
        known = last_tokens[(-1 - token_ids).clamp_min(0)].clamp_min(0)
        token_ids = torch.where(token_ids < 0, known, token_ids)
        logits = self._forward(arrays, rows, StepInputs(token_ids, *others))
        if self._ranks.rank == 0:
            tokens = chosen(logits, draws, drawing, PENDING)
        else:
            tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
        self._ranks.share(tokens)
        last_tokens.index_copy_(0, drawing[0], tokens)
        return read_later(tokens)

    def _tokens_on(self, device: torch.device) -> Tensor:
        if self._last_tokens is None:
            self._last_tokens = torch.zeros(self._max_num_seqs, dtype=torch.int64, device=device)
        return self._last_tokens


def read_later(tokens: Tensor) -> Callable[[], list[int]]:
    """Starts the way of some tokens to the host; what it returns waits for them."""
    if not tokens.is_cuda:
        return lambda: listed(tokens)
    there = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    there.copy_(tokens, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own lack
    arrived.record()

    def wait() -> list[int]:
        note_wait()
        arrived.synchronize()
        return listed(there)

    return wait

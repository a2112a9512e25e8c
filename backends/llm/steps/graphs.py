"""Decode steps as recorded graphs: one launch for all the kernels of a step.

A graph is recorded for a number of rows, a bucket, over inputs that stay where they are. A step is
copied there and fills its bucket up with rows that see nothing and write nothing.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.steps.runner import Model

log = logging.getLogger(__name__)
MOST_MISSES = 16
"""So many steps of a bucket are computed kernel by kernel before it is recorded between two steps,
if the engine has not been idle till then."""
MOST_WASTE = 2
"""A step may use a bucket of so many times its rows until its own is recorded."""


class Recorder(Protocol):
    """Records what a device is told."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Computes once or more; what it returns computes again, over what then lies in the same
        memory. Its result is good until the next of any recording."""


class CudaRecorder:
    """CUDA graphs, which share one pool of memory: one is replayed at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See Recorder."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own lack
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()  # compiles kernels, which cannot be done while recording
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = compute()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


def bucket_sizes(max_num_seqs: int) -> list[int]:
    """1, 2, 4, 8, then each eighth row: at most 7 rows are computed for nothing."""
    sizes = [size for size in (1, 2, 4, *range(8, max_num_seqs, 8)) if size < max_num_seqs]
    return [*sizes, max_num_seqs]


class GraphedModel:
    """A Model whose decode steps are replayed. Owned by the engine's thread."""

    def __init__(
        self,
        model: Model,
        recorder: Recorder,
        device: torch.device,
        *,
        max_num_seqs: int,
        max_num_blocks: int,
        adapters: AdapterBank | None = None,
        like: Tensor | None = None,
    ) -> None:
        """`max_num_blocks`: of one sequence. `adapters`: steps that have some are not replayed.
        `like`: what the states of a stage are that begins with some, [.., hidden]."""
        self._model = model
        self._recorder = recorder
        self._adapters = adapters
        self._sizes = bucket_sizes(max_num_seqs)
        self._graphs: dict[int, Callable[[], Tensor]] = {}
        self._misses: Counter[int] = Counter()
        self._is_able = True
        self._inputs = _empty_inputs(max_num_seqs, max_num_blocks, device, like)

    def forward(self, inputs: StepInputs) -> Tensor:
        """See Model."""
        if self._adapters is not None and self._adapters.step is not None:
            return self._model.forward(inputs)
        num_rows = len(inputs.token_ids)
        is_decode = num_rows == len(inputs.sequence_lengths) == len(inputs.sample_rows)
        size = self._bucket(num_rows) if is_decode else None
        if size is None:
            return self._model.forward(inputs)
        self._fill(inputs, num_rows, size)
        return self._graphs[size]()[:num_rows]

    @torch.no_grad()
    def record_next(self) -> bool:
        """Records the bucket that is missed most, or else the largest: its memory does for the
        smaller ones. False when none is left."""
        if self._adapters is not None:
            self._adapters.step = None  # what is recorded is the base
        missing = [size for size in self._sizes if size not in self._graphs]
        if not missing or not self._is_able:
            return False
        self._record(max(missing, key=lambda size: (self._misses[size], size)))
        return True

    def _bucket(self, num_rows: int) -> int | None:
        """The smallest recorded that holds so many rows and is not far too large."""
        own = next(size for size in self._sizes if size >= num_rows)
        if own not in self._graphs and self._is_able:
            self._misses[own] += 1
            if self._misses[own] > MOST_MISSES:
                self._record(own)
        fitting = (size for size in self._sizes if own <= size <= max(own, MOST_WASTE * num_rows))
        return next((size for size in fitting if size in self._graphs), None)

    def _fill(self, inputs: StepInputs, num_rows: int, size: int) -> None:
        mine = self._inputs
        mine.token_ids[:num_rows].copy_(inputs.token_ids)
        mine.positions[:num_rows].copy_(inputs.positions)
        mine.slot_mapping[:num_rows].copy_(inputs.slot_mapping)
        mine.sequence_lengths[:num_rows].copy_(inputs.sequence_lengths)
        mine.block_tables[:num_rows, : inputs.block_tables.shape[1]].copy_(inputs.block_tables)
        if mine.states is not None and inputs.states is not None:
            mine.states[:num_rows].copy_(inputs.states)
        if size > num_rows:
            self._empty(num_rows, size)

    def _empty(self, start: int, end: int) -> None:
        self._inputs.slot_mapping[start:end].fill_(-1)
        self._inputs.sequence_lengths[start:end].fill_(0)

    def _record(self, size: int) -> None:
        mine = self._inputs
        bucket = StepInputs(
            mine.token_ids[:size], mine.positions[:size], mine.slot_mapping[:size],
            mine.query_starts[: size + 1], mine.sequence_lengths[:size], mine.block_tables[:size],
            mine.sample_rows[:size], None if mine.states is None else mine.states[:size],
        )  # fmt: skip
        self._empty(0, size)
        try:
            self._graphs[size] = self._recorder.record(lambda: self._model.forward(bucket))
        except RuntimeError as error:
            # No memory, or a library that does what cannot be recorded. What a lost device says
            # here, it says at the next step again, which ends the engine.
            self._is_able = False
            reason = str(error).splitlines()[0]
            log.warning(
                "decode steps of %d rows and others are not recorded, and slower: %s", size, reason
            )
        else:
            log.debug("recorded decode steps of %d rows", size)


def _empty_inputs(
    num_rows: int, num_blocks: int, device: torch.device, like: Tensor | None
) -> StepInputs:
    """Of rows that see nothing and write nothing."""
    longs = torch.arange(num_rows, device=device)
    return StepInputs(
        token_ids=torch.zeros_like(longs),
        positions=torch.zeros_like(longs),
        slot_mapping=torch.full_like(longs, -1),
        query_starts=torch.arange(num_rows + 1, dtype=torch.int32, device=device),
        sequence_lengths=torch.zeros(num_rows, dtype=torch.int32, device=device),
        block_tables=torch.zeros(num_rows, num_blocks, dtype=torch.int32, device=device),
        sample_rows=longs,
        states=None if like is None else like.new_zeros(num_rows, like.shape[-1]),
    )

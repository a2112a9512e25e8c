"""Buckets of decode steps: which is chosen, how it is filled up, what it replays. The recorder is
the processor's: what is recorded is computed again over the same memory."""

import random
from collections.abc import Callable

import pytest
import torch
from late_device import HashModel
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.steps.graphs import MOST_MISSES, CudaRecorder, GraphedModel, bucket_sizes

CPU = torch.device("cpu")


class Tape:
    """A Recorder without a device. Results share one memory, as those of graphs do."""

    def __init__(self) -> None:
        self.replayed: list[int] = []
        self.num_recorded = 0
        self._shared = torch.zeros(64, 40)

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.num_recorded += 1
        size = len(compute())

        def replay() -> Tensor:
            self.replayed.append(size)
            self._shared[:size] = compute()
            return self._shared[:size]

        return replay


def decode(lengths: list[int], block_size: int = 4, width: int = 6) -> StepInputs:
    """The next token of sequences whose blocks follow each other."""
    tables = torch.arange(1, len(lengths) * width + 1, dtype=torch.int32).view(-1, width)
    positions = torch.tensor(lengths) - 1
    blocks = tables[torch.arange(len(lengths)), positions // block_size].long()
    used = -(-max(lengths) // block_size)
    return StepInputs(
        token_ids=positions % 7 + 3,
        positions=positions,
        slot_mapping=blocks * block_size + positions % block_size,
        query_starts=torch.arange(len(lengths) + 1, dtype=torch.int32),
        sequence_lengths=torch.tensor(lengths, dtype=torch.int32),
        block_tables=tables[:, :used],
        sample_rows=torch.arange(len(lengths)),
    )


def graphed(max_num_seqs: int = 20) -> tuple[GraphedModel, HashModel, Tape]:
    model, tape = HashModel(200, 4), Tape()
    made = GraphedModel(model, tape, CPU, max_num_seqs=max_num_seqs, max_num_blocks=8)
    return made, model, tape


def test_buckets_end_with_the_largest_batch() -> None:
    assert bucket_sizes(256) == [1, 2, 4, *range(8, 257, 8)]
    assert bucket_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert bucket_sizes(1) == [1]


def test_replayed_steps_give_what_computed_ones_give() -> None:
    made, _, tape = graphed()
    while made.record_next():
        pass
    plain = HashModel(200, 4)
    chance = random.Random(1)
    for _ in range(60):  # large steps leave their rows behind for small ones to cover
        lengths = [chance.randrange(1, 24) for _ in range(chance.randrange(1, 21))]
        inputs = decode(lengths)
        assert torch.equal(made.forward(inputs), plain.forward(inputs))
    assert (tape.num_recorded, len(tape.replayed)) == (6, 60)
    assert plain._slots == made._model._slots  # type: ignore[attr-defined]  # a row too many would write


def test_steps_use_the_smallest_bucket_that_holds_them() -> None:
    made, _, tape = graphed()
    while made.record_next():
        pass
    for count in (1, 2, 3, 5, 8, 9, 17, 20):
        made.forward(decode([1] * count))
    assert tape.replayed == [1, 2, 4, 8, 8, 16, 20, 20]


def test_a_bucket_far_too_large_is_not_used() -> None:
    made, _, tape = graphed()
    assert made.record_next()  # the largest
    made.forward(decode([1] * 3))
    assert tape.replayed == []
    made.forward(decode([1] * 11))
    assert tape.replayed == [20]


def test_a_busy_engine_records_what_it_misses_between_two_steps() -> None:
    made, _, tape = graphed()
    for _ in range(MOST_MISSES + 2):
        made.forward(decode([1, 2, 3]))
    assert (tape.num_recorded, tape.replayed) == (1, [4, 4])


def test_what_is_missed_is_recorded_first() -> None:
    made, _, tape = graphed()
    made.forward(decode([1, 2]))
    made.record_next()
    made.forward(decode([1, 2]))
    assert tape.replayed == [2]


def test_chunks_and_rows_without_a_token_are_computed() -> None:
    made, model, tape = graphed()
    while made.record_next():
        pass
    before = model.num_steps
    one = decode([3])
    chunk = StepInputs(
        torch.tensor([3, 4]), torch.tensor([0, 1]), torch.tensor([4, 5]),
        torch.tensor([0, 2], dtype=torch.int32), torch.tensor([2], dtype=torch.int32),
        one.block_tables, torch.tensor([1]),
    )  # fmt: skip
    assert made.forward(chunk).shape == (1, 40)
    silent = StepInputs(
        one.token_ids, one.positions, one.slot_mapping, one.query_starts, one.sequence_lengths,
        one.block_tables, one.sample_rows[:0],
    )  # fmt: skip
    assert made.forward(silent).shape == (0, 40)
    assert (tape.replayed, model.num_steps) == ([], before + 2)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory\nmore"),
        RuntimeError("operation not permitted when stream is capturing\nmore"),
    ],
)
def test_what_cannot_be_recorded_is_computed(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
            raise error

    made = GraphedModel(HashModel(200, 4), Full(), CPU, max_num_seqs=4, max_num_blocks=8)
    assert made.record_next()
    assert not made.record_next()
    assert torch.equal(made.forward(decode([1, 2])), HashModel(200, 4).forward(decode([1, 2])))
    told = f"decode steps of 4 rows and others are not recorded, and slower: {error}".splitlines()[
        0
    ]
    assert [record.message for record in caplog.records] == [told]


class Doubling:
    """A model of one kernel."""

    def forward(self, inputs: StepInputs) -> Tensor:
        return (inputs.token_ids.float() * 2 + inputs.positions).unsqueeze(1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_graphs_replay_over_new_inputs() -> None:
    there = torch.device("cuda")
    made = GraphedModel(Doubling(), CudaRecorder(), there, max_num_seqs=20, max_num_blocks=8)
    while made.record_next():
        pass
    for lengths in ([5, 9, 2], [1] * 20, [7]):
        given = decode(lengths)
        inputs = given.to(there)
        assert torch.equal(made.forward(inputs).cpu(), Doubling().forward(given))

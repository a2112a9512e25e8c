"""A step's arrays come to the device whole, by one copy; logits are asked of the device alone."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.device.staging import DeviceStaging, make_staging
from trivet.backends.llm.sampling.sampler import RowState, logprobs_of, sample
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.steps.runner import TorchRunner

CPU = torch.device("cpu")


def arrays(num_tokens: int) -> StepArrays:
    chance = np.random.default_rng(num_tokens)
    return StepArrays(
        chance.integers(0, 1 << 40, num_tokens),
        chance.integers(0, 1 << 40, num_tokens),
        chance.integers(0, 1 << 40, num_tokens),
        chance.integers(0, 99, 4).astype(np.int32),
        chance.integers(0, 99, 3).astype(np.int32),
        chance.integers(0, 99, (8, 3)).astype(np.int32).T,  # not contiguous
    )


class Remembering:
    """A model that keeps what it was given."""

    def forward(self, inputs: StepInputs) -> Tensor:
        self.inputs = inputs
        return torch.zeros(len(inputs.sample_rows), 5)


@pytest.mark.parametrize("num_tokens", [1, 7, 100_000])
def test_staged_inputs_are_the_arrays(num_tokens: int) -> None:
    model, given = Remembering(), arrays(num_tokens)
    TorchRunner(model, DeviceStaging(CPU)).run(given, [0, 2])
    found = model.inputs
    for name in ("token_ids", "positions", "slot_mapping", "query_starts", "sequence_lengths",
                 "block_tables"):  # fmt: skip
        tensor, array = getattr(found, name), getattr(given, name)
        assert tensor.dtype == torch.from_numpy(array).dtype
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert found.sample_rows.tolist() == [0, 2]
    assert found.sample_rows.dtype == torch.int64


def test_a_step_of_the_same_shape_lies_at_the_same_addresses() -> None:
    staging = DeviceStaging(CPU)
    first = staging.bring([np.arange(5), np.arange(3, dtype=np.int32)])
    places = [tensor.data_ptr() for tensor in first]
    second = staging.bring([np.arange(5) + 1, np.arange(3, dtype=np.int32)])
    assert [tensor.data_ptr() for tensor in second] == places
    assert all(place % 16 == 0 for place in places)
    assert second[0].tolist() == [1, 2, 3, 4, 5]


def test_a_processor_reads_the_arrays_themselves() -> None:
    array = np.arange(5)
    (tensor,) = make_staging(CPU).bring([array])
    assert tensor.data_ptr() == array.ctypes.data


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Tensors that name no device are without memory: mixed with logits, they fail as on a GPU."""
    before = torch.get_default_device()
    torch.set_default_device("meta")
    yield
    torch.set_default_device(before)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=0.7),
        Sampling(temperature=0.7, top_k=3, top_p=0.9),
        Sampling(temperature=0.7, min_p=0.1),
        Sampling(temperature=0.7, typical_p=0.9),
        Sampling(temperature=0.7, typical_p=0.9, top_k=3),
        Sampling(temperature=0.0, repetition_penalty=1.2, frequency_penalty=0.5),
        Sampling(temperature=0.0, logit_bias={3: 2.0}, allowed_token_ids=(1, 3, 5), min_tokens=9),
    ],
)
def test_the_sampler_works_where_the_logits_lie(sampling: Sampling, elsewhere: None) -> None:
    logits = torch.randn(3, 2000, device=CPU)
    plain = Sampling(temperature=0.0)
    rows = [
        RowState(each, seed, [1, 2], (7,), output_ids=[4, 4, 5])
        for seed, each in enumerate((sampling, plain, sampling))
    ]
    wanted = int(logits[1].argmax())
    tokens, errors = sample(logits, rows)
    assert (tokens[1], errors) == (wanted, {})
    assert all(0 <= token < 2000 for token in tokens)


def test_log_probabilities_are_read_where_the_logits_lie(elsewhere: None) -> None:
    logits = torch.randn(2, 50, device=CPU)
    found = logprobs_of(logits, [3, 4], 5)
    assert found[0].logprob == pytest.approx(float(logits[0].log_softmax(0)[3]), abs=1e-5)


class Mask:
    """Allows token 9 alone."""

    def mask(self) -> Tensor:
        return torch.arange(50, device=CPU) == 9


def test_masks_come_to_the_logits(elsewhere: None) -> None:
    row = RowState(Sampling(temperature=0.0), 0, [1], (7,), constraint=Mask())
    assert sample(torch.randn(1, 50, device=CPU), [row]) == ([9], {})

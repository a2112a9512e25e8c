"""What crosses between host and device is told to the batch; a meta device stands for a GPU."""

import numpy as np
import torch

from trivet.backends.api import Batch, CheckedRequest, CopyKind, Tensor
from trivet.backends.pytorch.border import Border


def make_batch() -> Batch:
    inputs = {"x": Tensor.of("x", np.zeros(4, np.float32))}
    return Batch([CheckedRequest("m", 1, "", inputs)], batching=False)


def test_inputs_that_go_to_a_device_are_counted_in_bytes_and_waits() -> None:
    batch = make_batch()
    tensor = Border(torch.device("meta")).bring(batch, np.zeros((2, 8), np.float32))
    assert tensor.device.type == "meta"
    assert batch.copies[CopyKind.HOST_TO_DEVICE] == 64
    assert batch.synchronisations == 1


def test_the_end_of_a_computation_on_a_gpu_is_waited_for_and_counted() -> None:
    waited: list[torch.device] = []
    batch = make_batch()
    Border(torch.device("cuda", 1), waited.append).wait(batch)
    Border(torch.device("cpu"), waited.append).wait(batch)
    assert waited == [torch.device("cuda", 1)]
    assert batch.synchronisations == 1


def test_nothing_is_counted_on_a_cpu() -> None:
    batch, border = make_batch(), Border(torch.device("cpu"))
    values = np.arange(4, dtype=np.float32)
    tensor = border.bring(batch, values)
    assert np.shares_memory(border.take(batch, tensor), values)
    assert not batch.copies
    assert batch.synchronisations == 0

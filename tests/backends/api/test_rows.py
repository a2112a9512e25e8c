"""Batches are handed on whole: neighbouring views are joined again without copying a byte."""

import re
from typing import Any, cast

import numpy as np
import pytest

from trivet.backends.api import BackendFailed, Batch, CheckedRequest, CopyKind, Tensor
from trivet.backends.api.tensor import join_rows


def batch_of(tensors: list[Tensor]) -> Batch:
    requests = [
        CheckedRequest("m", 1, "", {"X": each}, batch_size=each.shape[0]) for each in tensors
    ]
    return Batch(requests, batching=True)


def scattered(values: np.ndarray, sizes: list[int]) -> list[Tensor]:
    """What requests of these sizes get of a model's output."""
    batch = batch_of([Tensor.of("X", np.zeros((size, 2), np.float32)) for size in sizes])
    batch.scatter("Y", values)
    return [outputs[0].under("X") for outputs in batch.outputs]


def address(array: np.ndarray | None) -> int:
    assert array is not None
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("values", [np.ones((6, 3), np.float32), np.full((6, 1), b"a", object)])
def test_a_scattered_batch_is_gathered_as_the_array_it_was(values: np.ndarray) -> None:
    batch = batch_of(scattered(values, [1, 3, 2]))

    gathered = batch.gather("X")

    assert gathered is values
    assert batch.gathered_bytes == 0


def test_neighbours_are_gathered_as_a_slice() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    batch = batch_of(scattered(values, [1, 3, 2])[1:])

    gathered = batch.gather("X")

    assert address(gathered) == address(values[1:])
    assert gathered is not None
    assert gathered.tolist() == values[1:].tolist()
    assert batch.gathered_bytes == 0


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2], [0, 0]])
def test_what_does_not_lie_together_is_copied_and_counted(order: list[int]) -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    parts = scattered(values, [1, 3, 2])
    batch = batch_of([parts[index] for index in order])

    gathered = batch.gather("X")

    wanted = np.concatenate([parts[index].numpy() for index in order])
    assert gathered is not None
    assert gathered.tolist() == wanted.tolist()
    assert batch.gathered_bytes == wanted.nbytes


def test_parts_of_two_arrays_are_not_taken_for_neighbours() -> None:
    one, other = (scattered(np.full((2, 2), i, np.float32), [1, 1]) for i in (1, 2))

    assert join_rows([one[0], other[1]]) is None
    assert join_rows([one[0], Tensor.of("X", np.zeros((1, 2), np.float32))]) is None


def test_an_output_that_cannot_be_handed_out_as_views_is_copied_once_and_counted() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 6).T
    batch = batch_of([Tensor.of("X", np.zeros((3, 2), np.float32)) for _ in range(2)])

    batch.scatter("Y", values)

    assert batch.copies == {CopyKind.SCATTER: values.nbytes}
    assert [t[0].numpy().tolist() for t in batch.outputs] == [
        values[:3].tolist(),
        values[3:].tolist(),
    ]


def test_other_frameworks_take_a_tensor_where_it_lies() -> None:
    values = np.arange(4, dtype=np.float32)

    taken = np.from_dlpack(cast(Any, Tensor.of("X", values)))

    assert address(taken) == address(values)
    with pytest.raises(TypeError, match="BYTES"):
        Tensor.of("X", np.array([b"a"], object)).__dlpack__()


@pytest.mark.more_of("V62")
@pytest.mark.parametrize("sizes", [[2], [1, 1], [1, 1, 1]])
@pytest.mark.parametrize("shape", [(1, 4), (4, 4), (0, 4), ()])
def test_an_output_needs_the_rows_of_its_batch_whether_requests_were_joined_or_not(
    sizes: list[int], shape: tuple[int, ...]
) -> None:
    text = f"gave output 'Y' of shape {list(shape)} for a batch of {sum(sizes)}:"
    with pytest.raises(BackendFailed, match=re.escape(text)):
        scattered(np.zeros(shape), sizes)


def test_a_model_without_batches_gives_any_shape() -> None:
    request = CheckedRequest("m", 1, "", {"X": Tensor.of("X", np.zeros((2, 2)))})
    batch = Batch([request], batching=False)
    batch.scatter("Y", np.zeros((5, 1)))
    assert batch.outputs[0][0].shape == (5, 1)

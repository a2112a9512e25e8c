"""Tensors and frameworks take each other's memory by DLPack: same address, same values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from trivet.backends.api import DataType, Tensor


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def by_numpy(tensor: Tensor) -> tuple[int, list[Any]]:
    taken = np.from_dlpack(tensor)  # type: ignore[arg-type]  # has the two methods
    return address(taken), taken.tolist()


def by_torch(tensor: Tensor) -> tuple[int, list[Any]]:
    taken = from_dlpack(tensor)
    return taken.data_ptr(), taken.tolist()


def by_onnxruntime(tensor: Tensor) -> tuple[int, list[Any]]:
    taken = ort.OrtValue.from_dlpack(tensor)
    return taken.data_ptr(), taken.numpy().tolist()


TAKERS = {"numpy": by_numpy, "torch": by_torch, "onnxruntime": by_onnxruntime}
TYPES = [
    np.bool_,
    np.uint8,
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
]


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_framework_takes_a_tensor_where_it_lies(
    take: Callable[[Tensor], tuple[int, list[Any]]], dtype: Any
) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    assert take(Tensor.of("X", values)) == (address(values), values.tolist())


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_a_request_s_own_bytes_are_taken_where_they_lie(
    take: Callable[[Tensor], tuple[int, list[Any]]],
) -> None:
    body = bytes(8) + np.array([1, 2, 3], np.float32).tobytes()
    tensor = Tensor.from_raw("X", DataType.FP32, (3,), memoryview(body)[8:])
    assert take(tensor) == (address(tensor.numpy()), [1, 2, 3])


def test_bfloat16_is_taken_by_torch_where_it_lies() -> None:
    values = np.array([1.5, -2], DataType.BF16.dtype)
    taken = from_dlpack(Tensor.of("X", values))
    assert taken.dtype is torch.bfloat16
    assert taken.data_ptr() == address(values)
    assert taken.tolist() == [1.5, -2]


def test_the_memory_lives_as_long_as_a_taker_has_it() -> None:
    taken = from_dlpack(Tensor.from_raw("X", DataType.FP32, (2,), bytes([0, 0, 128, 63] * 2)))
    assert taken.tolist() == [1, 1]


def test_a_copy_is_one() -> None:
    values = np.frombuffer(bytes(8), np.float32)
    taken = np.from_dlpack(Tensor.of("X", values), copy=True)  # type: ignore[arg-type]  # as above
    assert address(taken) != address(values)


def test_a_tensor_takes_what_frameworks_have_made_where_it_lies() -> None:
    made = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert address(Tensor.of("X", np.from_dlpack(made)).numpy()) == made.data_ptr()
    value = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    tensor = Tensor.of("X", np.from_dlpack(value))
    assert address(tensor.numpy()) == value.data_ptr()
    assert tensor.shape == (2, 3)


def test_texts_are_refused() -> None:
    texts = Tensor.of("X", np.array([b"a"], object))
    with pytest.raises(TypeError, match="BYTES"):
        texts.__dlpack__()
    with pytest.raises(TypeError, match="BYTES"):
        texts.__dlpack_device__()

"""Reshape: clients and model see the same memory in different shapes."""

import re

import numpy as np
import pytest
from fakes import make_signature

from trivet.backends.api import BackendFailed, DataType, Signature, Tensor, TensorSpec
from trivet.server.scheduling.reshape import Reshape, matched


@pytest.mark.parametrize(
    ("shape", "dims", "wanted", "expected"),
    [
        ((4,), (4,), (2, 2), (2, 2)),
        ((1,), (1,), (), ()),
        ((5, 3), (-1, 3), (3, -1), (3, 5)),
        ((5, 7), (-1, -1), (1, -1, -1), (1, 5, 7)),
    ],
)
def test_variable_dimensions_are_matched_in_order(
    shape: tuple[int, ...],
    dims: tuple[int, ...],
    wanted: tuple[int, ...],
    expected: tuple[int, ...],
) -> None:
    assert matched(shape, dims, wanted) == expected


def test_a_model_without_reshapes_has_none() -> None:
    assert Reshape.of(make_signature()) is None


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_inputs_and_outputs_are_views_in_the_other_shape(max_batch_size: int) -> None:
    spec = TensorSpec("X", DataType.FP32, (4,), (2, 2))
    signature = Signature({"X": spec}, {"X": spec}, max_batch_size, decoupled=False)
    reshape = Reshape.of(signature)
    assert reshape is not None
    head = (3,) if max_batch_size else ()
    values = np.zeros((*head, 4), np.float32)
    inside = reshape.inputs({"X": Tensor.of("X", values)})["X"]
    assert inside.shape == (*head, 2, 2)
    assert np.shares_memory(inside.numpy(), values)
    (outside,) = reshape.outputs([inside])
    assert outside.shape == values.shape
    assert np.shares_memory(outside.numpy(), values)


def test_an_output_that_is_not_in_the_models_shape_is_an_error_with_both() -> None:
    spec = TensorSpec("X", DataType.FP32, (4,), (2, 2))
    reshape = Reshape.of(Signature({"X": spec}, {"X": spec}, 8, decoupled=False))
    assert reshape is not None
    for shape in ((3, 5), (3, 2, 3)):
        text = f"output 'X' has shape {list(shape)}; the model configuration (reshape) says"
        with pytest.raises(BackendFailed, match=re.escape(text)):
            reshape.outputs([Tensor.of("X", np.zeros(shape, np.float32))])

"""The classification extension: order, form and limits of the text that stands for values."""

import numpy as np
import pytest

from trivet.backends.api import InvalidRequest, Tensor
from trivet.server.protocol.classification import classify


def texts(tensor: Tensor) -> list[object]:
    return list(tensor.numpy().ravel())


def test_largest_values_come_first_with_index_and_label() -> None:
    tensor = Tensor.of("out", np.array([[0.5, 3.3, 1.25]], dtype=np.float32))
    answer = classify(tensor, 2, batching=True, labels=["cat", "dog"])
    assert answer.shape == (1, 2)
    assert answer.name == "out"
    assert answer.datatype.value == "BYTES"
    assert texts(answer) == [b"3.300000:1:dog", b"1.250000:2"]


def test_each_batch_item_is_ranked_by_itself() -> None:
    tensor = Tensor.of("out", np.array([[1, 2, 3], [9, 8, 7]], dtype=np.int32))
    answer = classify(tensor, 1, batching=True, labels=())
    assert answer.shape == (2, 1)
    assert texts(answer) == [b"3:2", b"9:0"]


def test_without_a_batch_dimension_all_elements_compete() -> None:
    tensor = Tensor.of("out", np.array([[1.0, 2.0], [4.0, 3.0]]))
    answer = classify(tensor, 9, batching=False, labels=())
    assert answer.shape == (4,)
    assert texts(answer) == [b"4.000000:2", b"3.000000:3", b"2.000000:1", b"1.000000:0"]


def test_equal_values_come_in_index_order() -> None:
    tensor = Tensor.of("out", np.array([5, 7, 7, 7, 1], dtype=np.uint8))
    assert texts(classify(tensor, 2, batching=False, labels=())) == [b"7:1", b"7:2"]


def test_not_a_number_is_never_the_best() -> None:
    tensor = Tensor.of("out", np.array([np.nan, 1.0, np.inf]))
    best = texts(classify(tensor, 2, batching=False, labels=()))
    assert best == [b"inf:2", b"1.000000:1"]


def test_agrees_with_a_full_sort() -> None:
    values = np.random.default_rng(7).normal(size=(3, 1000)).astype(np.float32)
    answer = classify(Tensor.of("out", values), 10, batching=True, labels=())
    indices = [[int(text.split(b":")[1]) for text in row] for row in answer.numpy()]
    assert indices == np.argsort(-values, axis=1)[:, :10].tolist()


def test_an_empty_output_has_no_classes() -> None:
    tensor = Tensor.of("out", np.empty((2, 0), dtype=np.float32))
    assert classify(tensor, 3, batching=True, labels=()).shape == (2, 0)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.array([b"a"], dtype=object), "BYTES"),
        (np.array([True]), "BOOL"),
        (np.array([1.0], dtype=np.float16), "FP16"),
    ],
)
def test_types_without_an_order_are_refused(values: np.ndarray, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        classify(Tensor.of("out", values), 1, batching=False, labels=())
    assert f"due to unsupported type '{name}'" in caught.value.message


def test_more_than_a_million_elements_are_refused() -> None:
    tensor = Tensor.of("out", np.zeros(1_000_001, dtype=np.uint8))
    with pytest.raises(InvalidRequest, match="classification output tensor too large"):
        classify(tensor, 1, batching=False, labels=())

"""A request larger than what is computed at once is computed in parts, and answered as a whole."""

from collections.abc import Callable

import numpy as np
import pytest

from trivet.backends.api import BackendFailed, Batch, Cancelled, CancelToken, CheckedRequest, Tensor
from trivet.server.scheduling.parts import execute_in_parts

Compute = Callable[[Batch], None]


class Recorder:
    """Computes by a function, and remembers the sizes that it was given."""

    def __init__(self, compute: Compute) -> None:
        self.sizes: list[int] = []
        self._compute = compute

    def execute(self, batch: Batch) -> None:
        self.sizes.append(batch.size)
        self._compute(batch)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


def twice(batch: Batch) -> None:
    values = batch.gather("x")
    assert values is not None
    batch.scatter("y", values * 2)
    batch.scatter("row", np.arange(batch.size)[:, None])


def request(num_rows: int, cancel: CancelToken | None = None) -> CheckedRequest:
    x = np.arange(num_rows * 2, dtype=np.float32).reshape(num_rows, 2)
    return CheckedRequest(
        "m", 1, "", {"x": Tensor.of("x", x)}, batch_size=num_rows, cancel=cancel or CancelToken()
    )


def run(instance: Recorder, asked: CheckedRequest, num_rows: int) -> Batch:
    batch = Batch([asked], batching=True)
    execute_in_parts(instance, batch, num_rows)
    return batch


def test_rows_come_back_in_order_from_parts_of_the_given_size() -> None:
    instance = Recorder(twice)

    batch = run(instance, request(10), 4)

    assert instance.sizes == [4, 4, 2]
    y, row = batch.outputs[0]
    assert (y.name, row.name) == ("y", "row")
    np.testing.assert_array_equal(y.numpy(), np.arange(20).reshape(10, 2) * 2)
    assert row.numpy()[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_texts_are_put_together_too() -> None:
    def names(batch: Batch) -> None:
        values = batch.gather("x")
        assert values is not None
        batch.scatter("y", np.array([[str(int(v)).encode()] for v, _ in values], object))

    (y,) = run(Recorder(names), request(3), 2).outputs[0]

    assert y.numpy().tolist() == [[b"0"], [b"2"], [b"4"]]


def test_parts_that_differ_in_other_dimensions_are_computed_as_one() -> None:
    instance = Recorder(lambda batch: batch.scatter("y", np.zeros((batch.size, batch.size))))

    (y,) = run(instance, request(5), 2).outputs[0]

    assert instance.sizes == [2, 2, 1, 5]
    assert y.shape == (5, 5)


def test_a_failure_of_a_part_is_the_request_s() -> None:
    def fail_later(batch: Batch) -> None:
        twice(batch)
        if batch.size < 4:
            batch.fail(0, BackendFailed("the last rows are bad"))

    batch = run(Recorder(fail_later), request(6), 4)

    assert batch.errors[0].message == "the last rows are bad"


def test_nothing_more_is_computed_for_who_has_gone() -> None:
    cancel = CancelToken()

    def leave(batch: Batch) -> None:
        twice(batch)
        cancel.cancel()

    instance = Recorder(leave)
    with pytest.raises(Cancelled):
        run(instance, request(8, cancel), 4)

    assert instance.sizes == [4]


def test_parameters_of_the_parts_are_the_answer_s() -> None:
    def tell(batch: Batch) -> None:
        twice(batch)
        batch.parameters[0] = {"rows": batch.size, f"of {batch.size}": True}

    batch = run(Recorder(tell), request(6), 4)

    assert batch.parameters == {0: {"rows": 2, "of 4": True, "of 2": True}}


@pytest.mark.parametrize("most_columns", [1, 9])
def test_tokens_count_once(most_columns: int) -> None:
    """Also where parts are computed again, as one."""

    def read(batch: Batch) -> None:
        batch.read_tokens(0, batch.size * 7)
        batch.scatter("y", np.zeros((batch.size, min(batch.size, most_columns))))

    batch = run(Recorder(read), request(5), 2)

    assert batch.num_tokens == {0: 35}

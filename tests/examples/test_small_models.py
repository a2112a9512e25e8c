"""add_sub, identity_fp32 and repeat_int32: what the first page of the docs calls."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from example_site import TritonClient
from patience import patience
from serving import RunningServer
from tritonclient.utils import InferenceServerException


def test_add_sub_answers_sum_and_difference(triton: TritonClient) -> None:
    first = np.array([1, 2, 3, 4], np.float32)
    second = np.array([4, 3, 2, 0.5], np.float32)

    answer = triton.call("add_sub", {"INPUT0": first, "INPUT1": second})

    assert answer["OUTPUT0"].tolist() == [5, 5, 5, 4.5]
    assert answer["OUTPUT1"].tolist() == [-3, -1, 1, 3.5]


def test_add_sub_refuses_a_vector_of_another_length(triton: TritonClient) -> None:
    vector = np.zeros(5, np.float32)

    with pytest.raises(InferenceServerException, match=r"shape.*\[5\]"):
        triton.call("add_sub", {"INPUT0": vector, "INPUT1": vector})


@pytest.mark.parametrize("size", [1, 64])
def test_identity_returns_its_input(triton: TritonClient, size: int) -> None:
    values = np.random.default_rng(0).standard_normal((size, 16)).astype(np.float32)

    answer = triton.call("identity_fp32", {"INPUT0": values})

    np.testing.assert_array_equal(answer["OUTPUT0"], values)


class Streamed:
    """A gRPC stream whose answers arrive in a queue."""

    def __init__(self, address: str) -> None:
        self.client = tritonclient.grpc.InferenceServerClient(address)
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def next(self) -> Any:
        """The next response; an error fails the test."""
        result, error = self.answers.get(timeout=patience())
        assert error is None, error
        return result

    def close(self) -> None:
        self.client.stop_stream()
        self.client.close()


@pytest.fixture
def stream(site: RunningServer) -> Iterator[Streamed]:
    opened = Streamed(site.grpc)
    yield opened
    opened.close()


def repeated(values: list[int], delays_ms: list[int]) -> list[Any]:
    """The inputs of repeat_int32."""
    arrays = {
        "IN": np.array(values, np.int32),
        "DELAY": np.array(delays_ms, np.uint32),
        "WAIT": np.array([0], np.uint32),
    }
    client = TritonClient(tritonclient.grpc, None)
    return [client.tensor(name, array) for name, array in arrays.items()]


def test_repeat_streams_one_response_for_each_element_then_the_final_flag(stream: Streamed) -> None:
    stream.client.async_stream_infer(
        "repeat_int32",
        repeated([7, -1, 5], [0, 5, 0]),
        request_id="r1",
        enable_empty_final_response=True,
    )

    answers = [stream.next() for _ in range(4)]

    parts = [(int(a.as_numpy("OUT")[0]), int(a.as_numpy("IDX")[0])) for a in answers[:3]]
    assert parts == [(7, 0), (-1, 1), (5, 2)]
    last = answers[3].get_response()
    assert {a.get_response().id for a in answers} == {"r1"}
    assert last.parameters["triton_final_response"].bool_param
    assert len(last.outputs) == 0


def test_two_requests_of_one_stream_are_answered_side_by_side(stream: Streamed) -> None:
    stream.client.async_stream_infer(
        "repeat_int32", repeated([1, 2], [0, 2_000]), request_id="slow"
    )
    first = stream.next()
    stream.client.async_stream_infer("repeat_int32", repeated([3], [0]), request_id="fast")

    second = stream.next()

    assert (first.get_response().id, int(first.as_numpy("OUT")[0])) == ("slow", 1)
    assert (second.get_response().id, int(second.as_numpy("OUT")[0])) == ("fast", 3)
    stream.client.stop_stream(cancel_requests=True)

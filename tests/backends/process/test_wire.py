"""Batches and their results, there and back, without a process."""

import socket
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    InvalidRequest,
    ResponseSender,
    Tensor,
)
from trivet.backends.api.value import changed
from trivet.backends.process.channel import Channel, ChannelClosed
from trivet.backends.process.link import Link, may_be_short
from trivet.backends.process.regions import RegionReader, RegionWriter
from trivet.backends.process.remote import OpenRequests
from trivet.backends.process.wire import decode_batch, decode_result, encode_batch, encode_result


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    ends = [Link(Channel(end), RegionWriter(), RegionReader()) for end in socket.socketpair()]
    yield ends[0], ends[1]
    for each in ends:
        each.channel.close()


def ask(name: str, *arrays: np.ndarray) -> CheckedRequest:
    inputs = {f"IN{i}": Tensor.of(f"IN{i}", array) for i, array in enumerate(arrays)}
    return CheckedRequest("m", 2, name, inputs)


def there(links: tuple[Link, Link], requests: Sequence[CheckedRequest]) -> Batch:
    """The batch as the process has it."""
    near, far = links
    near.send(*encode_batch(Batch(requests, batching=True), 7))
    message = far.receive()
    return decode_batch(message, OpenRequests().register, _no_sender)


def back(links: tuple[Link, Link], computed: Batch) -> Batch:
    """A batch with what the process has made of it."""
    near, far = links
    far.send(*encode_result(computed))
    batch = Batch(computed.requests, batching=True)
    decode_result(near.receive(), batch)
    return batch


def _no_sender(token: int, request: CheckedRequest) -> ResponseSender:
    raise AssertionError(f"request {token} ({request.id}) is not decoupled")


ARRAYS = {
    "alike": [np.arange(6, dtype=np.float32).reshape(1, 6) + n for n in range(3)],
    "of several lengths": [np.full((1, n), n, np.int64) for n in (1, 4, 2)],
    "scalars": [np.array(n, np.float64) for n in range(3)],
    "empty": [np.zeros((1, 0), np.uint8) for _ in range(3)],
    "alone": [np.ones((2, 3), np.float16)],
    "texts": [np.array([[b"one", b"", "zw\u00f6lf".encode()]], dtype=object) for _ in range(2)],
    "truths": [np.array([[True, False]]) for _ in range(2)],
}


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS.keys())
def test_tensors_of_every_kind_go_there_and_come_back(
    links: tuple[Link, Link], arrays: list[np.ndarray]
) -> None:
    second = np.array([3], np.int8)
    got = there(links, [ask(f"r{i}", array, second) for i, array in enumerate(arrays)])
    for index, (request, array) in enumerate(zip(got.requests, arrays, strict=True)):
        assert (request.model_name, request.model_version, request.id) == ("m", 2, f"r{index}")
        np.testing.assert_array_equal(request.inputs["IN0"].numpy(), array)
        np.testing.assert_array_equal(request.inputs["IN1"].numpy(), second)
        got.respond(index, [Tensor.of("OUT", array), Tensor.of("ALSO", second)])
    for array, outputs in zip(arrays, back(links, got).outputs, strict=True):
        assert [tensor.name for tensor in outputs] == ["OUT", "ALSO"]
        assert outputs[0].shape == array.shape
        np.testing.assert_array_equal(outputs[0].numpy(), array)


def test_what_a_request_wishes_goes_with_it(links: tuple[Link, Link]) -> None:
    plain, array = ask("plain", np.zeros(1)), np.zeros(1)
    dressed = changed(
        ask("dressed", array),
        output_names=("OUT",), parameters={"k": 1.5}, priority=3, timeout_us=9, deadline=4.0,
        sequence_id="s", sequence_end=True, batch_size=2, callers=("a", "b"),
    )  # fmt: skip
    dressed.cancel.cancel()
    first, second = there(links, [plain, dressed]).requests
    for name in (
        "id", "output_names", "parameters", "priority", "timeout_us", "deadline", "sequence_id",
        "sequence_start", "sequence_end", "batch_size", "callers",
    ):  # fmt: skip
        assert getattr(first, name) == getattr(plain, name)
        assert getattr(second, name) == getattr(dressed, name)
    assert (first.cancel.cancelled, second.cancel.cancelled) == (False, True)


def test_each_request_has_its_own_outcome(links: tuple[Link, Link]) -> None:
    got = there(links, [ask(name, np.zeros(1)) for name in "abcd"])
    got.respond(0, [Tensor.of("OUT", np.array([1.0]))])
    got.fail(1, InvalidRequest("not this one"))
    got.respond(2, [Tensor.of("OUT", np.array([2.0])), Tensor.of("MORE", np.array([3]))])
    got.respond(3, [], {"why": "nothing to say"})
    batch = back(links, got)
    assert [[tensor.name for tensor in outputs] for outputs in batch.outputs] == [
        ["OUT"], [], ["OUT", "MORE"], [],
    ]  # fmt: skip
    assert isinstance(batch.errors[1], InvalidRequest)
    assert batch.errors[1].message == "not this one"
    assert batch.parameters == {3: {"why": "nothing to say"}}


def test_a_text_that_has_no_wire_form_fails_its_request_alone(links: tuple[Link, Link]) -> None:
    got = there(links, [ask(name, np.zeros(1)) for name in "ab"])
    for index, text in enumerate(("fine", "\ud83d")):
        got.respond(index, [Tensor.of("OUT", np.array([text], dtype=object))])
    batch = back(links, got)
    assert batch.outputs[0][0].numpy().tolist() == [b"fine"]
    assert isinstance(batch.errors[1], BackendFailed)


@pytest.mark.parametrize(
    "run",
    [
        ["OUT", "FP32", 0, 8, 3, [1]],
        ["OUT", "FP32", 0, 8, 10**12, [0]],
        ["OUT", "FP32", 0, 8, 2, [-1]],
        ["OUT", "FP32", 4, 12, 2, [1]],
        ["OUT", "FP99", 0, 8, 2, [1]],
        ["OUT", "FP32", 0, 8, [[[1], 12]]],
        ["OUT", "FP32", 0],
    ],
)
def test_what_does_not_add_up_ends_the_conversation(
    links: tuple[Link, Link], run: list[object]
) -> None:
    near, far = links
    far.channel.send({"op": "done", "times": [0, 0, 0], "runs": [run]}, bytes(8))
    with pytest.raises(ChannelClosed, match="does not add up"):
        near.receive()


def test_what_is_not_short_is_not_tried(links: tuple[Link, Link]) -> None:
    near, far = links
    small, large = Tensor.of("X", np.zeros(4)), Tensor.of("X", np.zeros(100_000))
    assert near.try_send({"op": "x"}, [[small]]) == 32
    assert near.try_send({"op": "x"}, [[large]]) is None
    assert near.try_send({"op": "x" * 40_000}) is None
    elsewhere = cast(Tensor, SimpleNamespace(is_on_host=False))
    assert [may_be_short([[small, each]]) for each in (small, large, elsewhere)] == [
        True, False, False,
    ]  # fmt: skip
    assert far.receive().runs[0].tensors[0].shape == (4,)


def test_what_would_block_is_not_sent(links: tuple[Link, Link]) -> None:
    near, far = links
    num_sent = 0
    while near.try_send({"op": "x" * 20_000}) is not None:
        num_sent += 1
    assert num_sent
    for _ in range(num_sent):
        assert len(far.receive().header["op"]) == 20_000
    assert near.try_send({"op": "again"}) == 0
    assert far.receive().header["op"] == "again"

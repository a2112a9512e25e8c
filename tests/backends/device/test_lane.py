"""Order on a device: who waits for whom, and what the host waits for."""

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from device_twin import TwinDevice, bytes_at
from torch.utils.dlpack import from_dlpack

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    CopyKind,
    DataType,
    DeviceArray,
    DeviceTensor,
    Residence,
    Tensor,
)
from trivet.backends.device.lane import Lane
from trivet.backends.device.pinned import PinnedPool


@pytest.fixture
def lanes() -> list[Lane]:
    """Holds lanes for as long as the test: instances wait for theirs when they are closed."""
    return []


@pytest.fixture
def a_lane(lanes: list[Lane]) -> Callable[[TwinDevice], Lane]:
    def make(device: TwinDevice) -> Lane:
        lanes.append(Lane(device, PinnedPool(device, 1 << 20)))
        return lanes[-1]

    return make


MakeLane = Callable[[TwinDevice], Lane]


def asking(*tensors: Tensor, residence: Residence = Residence.HOST) -> CheckedRequest:
    size = tensors[0].shape[0] if tensors and tensors[0].shape else 1
    inputs = {tensor.name: tensor for tensor in tensors}
    return CheckedRequest("m", 1, "", inputs, batch_size=size, residence={"y": residence})


def doubled(lane: Lane, batch: Batch) -> None:
    """What a model on the twin does: y = 2 x, when its stream comes to it."""
    x = lane.bring(batch, "x")
    assert x is not None
    y = lane.empty(x.dtype, x.shape)
    stream = lane.stream
    stream.give(  # type: ignore[attr-defined]  # the twin's
        lambda: bytes_at(y.address, y.nbytes).view(y.dtype).__setitem__(
            slice(None), bytes_at(x.address, x.nbytes).view(x.dtype) * 2
        )
    )  # fmt: skip
    lane.hand_out(batch, {"y": y})


def values(*rows: float) -> np.ndarray:
    return np.array([[row, row + 1] for row in rows], np.float32)


def test_values_go_to_the_device_and_back_with_one_wait(a_lane: MakeLane) -> None:
    device = TwinDevice()
    batch = Batch([asking(Tensor.of("x", values(1, 2)))], batching=True)
    doubled(a_lane(device), batch)
    assert batch.outputs[0][0].numpy().tolist() == [[2, 4], [4, 6]]
    assert batch.copies == {CopyKind.HOST_TO_DEVICE: 16, CopyKind.DEVICE_TO_HOST: 16}
    assert batch.synchronisations == device.num_waits == 1


def test_three_models_on_three_streams_copy_nothing_to_the_host_between_them(
    a_lane: MakeLane,
) -> None:
    device = TwinDevice()
    lanes = [a_lane(device) for _ in range(3)]
    tensor: Tensor = Tensor.of("x", values(3))
    batches = []
    for lane, residence in zip(
        lanes, (Residence.DEVICE, Residence.DEVICE, Residence.HOST), strict=True
    ):
        batch = Batch([asking(tensor, residence=residence)], batching=True)
        doubled(lane, batch)
        batches.append(batch)
        tensor = batch.outputs[0][0].under("x")
    assert tensor.numpy().tolist() == [[24, 32]]
    first, middle, last = batches
    assert first.copies == {CopyKind.HOST_TO_DEVICE: 8}
    assert middle.copies == {}
    assert last.copies == {CopyKind.DEVICE_TO_HOST: 8}
    assert [batch.synchronisations for batch in batches] == [0, 0, 1]
    assert device.num_waits == 1


def test_memory_that_another_stream_still_reads_is_not_given_away(a_lane: MakeLane) -> None:
    device = TwinDevice()
    producer, consumer = a_lane(device), a_lane(device)
    made = Batch([asking(Tensor.of("x", values(5)), residence=Residence.DEVICE)], batching=True)
    doubled(producer, made)
    taken = Batch(
        [asking(made.outputs[0][0].under("x"), residence=Residence.DEVICE)], batching=True
    )
    doubled(consumer, taken)
    result = taken.outputs[0][0]
    # The producer's tensor dies and its stream goes on before the consumer has run at all.
    del made, taken
    producer.stream.run_all()  # type: ignore[attr-defined]  # the twin's
    assert result.numpy().tolist() == [[20, 24]]


def test_all_memory_is_given_back(a_lane: MakeLane) -> None:
    device = TwinDevice()
    lane = a_lane(device)
    for row in range(5):
        batch = Batch([asking(Tensor.of("x", values(row)))], batching=True)
        doubled(lane, batch)
    del batch
    lane.wait()
    assert device.used_bytes == 0


def test_rows_of_one_array_are_joined_without_a_copy_and_others_on_the_device(
    a_lane: MakeLane,
) -> None:
    device = TwinDevice()
    lane, other = a_lane(device), a_lane(device)
    made = Batch(
        [asking(Tensor.of("x", values(n)), residence=Residence.DEVICE) for n in (1, 2)],
        batching=True,
    )
    doubled(lane, made)
    parts = [outputs[0].under("x") for outputs in made.outputs]
    joined = Batch([asking(part) for part in parts], batching=True)
    array = other.bring(joined, "x")
    assert array is not None
    assert parts[0].device is not None
    assert array.address == parts[0].device.address
    assert joined.copies == {}
    swapped = Batch([asking(part) for part in reversed(parts)], batching=True)
    array = other.bring(swapped, "x")
    assert array is not None
    other.wait()
    assert array.numpy().tolist() == [[4, 6], [2, 4]]
    assert swapped.copies == {CopyKind.DEVICE: 16}


def test_requests_from_host_and_device_meet_on_the_device(a_lane: MakeLane) -> None:
    device = TwinDevice()
    lane = a_lane(device)
    made = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(lane, made)
    mixed = Batch(
        [asking(Tensor.of("x", values(7))), asking(made.outputs[0][0].under("x"))], batching=True
    )
    doubled(lane, mixed)
    assert [o[0].numpy().tolist() for o in mixed.outputs] == [[[14, 16]], [[4, 8]]]
    assert mixed.copies[CopyKind.HOST_TO_DEVICE] == 8


def test_an_output_that_a_condition_reads_is_on_host_and_device(a_lane: MakeLane) -> None:
    device = TwinDevice()
    batch = Batch([asking(Tensor.of("x", values(1)), residence=Residence.BOTH)], batching=True)
    doubled(a_lane(device), batch)
    output = batch.outputs[0][0]
    assert isinstance(output, DeviceTensor)
    assert output.is_on_host
    assert output.numpy().tolist() == [[2, 4]]
    assert device.num_waits == 1


def test_a_model_on_the_host_gets_a_copy_that_is_counted(a_lane: MakeLane) -> None:
    device = TwinDevice()
    made = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(a_lane(device), made)
    taken = Batch([asking(made.outputs[0][0].under("x"))], batching=True)
    gathered = taken.gather("x")
    assert gathered is not None
    assert gathered.tolist() == [[2, 4]]
    assert taken.copies == {CopyKind.DEVICE_TO_HOST: 8}
    assert taken.synchronisations == 1


def test_memory_of_another_device_goes_over_the_host(a_lane: MakeLane) -> None:
    near, far = TwinDevice(0), TwinDevice(1)
    made = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(a_lane(far), made)
    taken = Batch([asking(made.outputs[0][0].under("x"))], batching=True)
    doubled(a_lane(near), taken)
    assert taken.outputs[0][0].numpy().tolist() == [[4, 8]]
    assert taken.copies[CopyKind.DEVICE_TO_HOST] == 16


def test_pinned_blocks_return_to_their_pool_and_its_limit_holds() -> None:
    device = TwinDevice()
    pool = PinnedPool(device, limit_bytes=8192)
    first = pool.take(np.dtype(np.float32), (1024,))
    view = first[10:]
    second = pool.take(np.dtype(np.float32), (2,))
    beyond = pool.take(np.dtype(np.float32), (2,))
    assert pool.state.used_bytes == pool.state.total_bytes == 8192
    assert device.num_pinned == 2
    del first
    assert pool.state.used_bytes == 8192
    del view, second
    assert pool.state.used_bytes == 0
    assert beyond.shape == (2,)
    pool.take(np.dtype(np.float32), (2,))
    assert device.num_pinned == 2


def test_torch_takes_an_array_by_dlpack_and_its_stream_waits(a_lane: MakeLane) -> None:
    device = TwinDevice()
    batch = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(a_lane(device), batch)
    array = batch.outputs[0][0].device
    assert array is not None
    consumer = device.new_stream()
    capsule = array.__dlpack__(stream=consumer.handle)
    consumer.run_all()
    assert from_dlpack(capsule).tolist() == [[2, 4]]


def test_onnx_runtime_takes_an_array_by_dlpack(a_lane: MakeLane) -> None:
    device = TwinDevice()
    batch = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(a_lane(device), batch)
    array = batch.outputs[0][0].device
    assert array is not None
    value = ort.OrtValue.from_dlpack(array)
    device.default.run_all()  # its default stream waits for the values
    assert value.data_ptr() == array.address
    assert value.numpy().tolist() == [[2, 4]]


def test_bfloat16_and_bool_cross_by_dlpack() -> None:
    device = TwinDevice()
    for datatype, expected in ((DataType.BF16, torch.bfloat16), (DataType.BOOL, torch.bool)):
        allocation = device.allocate(8, device.default)
        bytes_at(allocation.address, 8)[:] = 0
        count = 8 // datatype.dtype.itemsize
        array = DeviceArray(allocation.memory, allocation.address, datatype.dtype, (count,))
        assert from_dlpack(array).dtype is expected


class Reversed(Batch):
    """A batch whose inputs are not the requests' own, as ragged ones are."""

    is_plain = False

    def gather(self, name: str) -> np.ndarray | None:
        return self.requests[0].inputs["x"].numpy()[::-1].copy()

    def scatter(self, name: str, values: np.ndarray) -> None:
        super().scatter(name, values[::-1])


def test_a_batch_with_a_gather_of_its_own_is_asked(a_lane: MakeLane) -> None:
    batch = Reversed([asking(Tensor.of("x", values(1, 5)), residence=Residence.DEVICE)],
                     batching=True)  # fmt: skip
    doubled(a_lane(TwinDevice()), batch)
    assert batch.outputs[0][0].numpy().tolist() == [[2, 4], [10, 12]]


def test_memory_that_is_read_very_often_forgets_readers_that_are_done(a_lane: MakeLane) -> None:
    device = TwinDevice()
    lane = a_lane(device)
    made = Batch([asking(Tensor.of("x", values(1)), residence=Residence.DEVICE)], batching=True)
    doubled(lane, made)
    shared = made.outputs[0][0].under("x")
    assert shared.device is not None
    for _ in range(50):
        doubled(lane, Batch([asking(shared)], batching=True))
    assert len(shared.device.memory._uses) <= 9

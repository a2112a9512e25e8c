"""Tensors on a GPU between the steps of an ensemble, on the twin: no copy, no wait of the host."""

import asyncio
from collections.abc import Callable

import numpy as np
from device_twin import TwinDevice, bytes_at
from ensemble_room import Room, config, ensemble, step
from patience import patience

from trivet.backends.api import Batch, CopyKind, DeviceTensor, Residence
from trivet.backends.device.lane import Lane
from trivet.backends.device.pinned import PinnedPool
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.config import parse_config

CHAIN = ensemble(
    step("double", {"IN": "X"}, {"OUT": "DOUBLED"}),
    step("add", {"IN": "DOUBLED"}, {"OUT": "ADDED"}),
    step("negate", {"IN": "ADDED"}, {"OUT": "Y"}),
)
Function = Callable[[np.ndarray], np.ndarray]
FUNCTIONS: dict[str, Function] = {
    "double": lambda values: values * 2, "add": lambda values: values + 1, "negate": lambda v: -v,
}  # fmt: skip


class LaneInstance:
    """A model on the twin: its stream computes OUT when somebody waits for it."""

    def __init__(self, lane: Lane, model_config: ModelConfig, function: Function) -> None:
        self.lane = lane
        self.config = model_config
        self._function = function
        self.addresses: list[tuple[int, int]] = []

    def execute(self, batch: Batch) -> None:
        given = self.lane.bring(batch, "IN")
        assert given is not None
        made = self.lane.empty(given.dtype, given.shape)
        self.addresses.append((given.address, made.address))
        function = self._function

        def compute() -> None:
            values = bytes_at(given.address, given.nbytes).view(given.dtype)
            bytes_at(made.address, made.nbytes).view(made.dtype)[:] = function(values)

        self.lane.stream.give(compute)  # type: ignore[attr-defined]  # the twin's
        self.lane.hand_out(batch, {"OUT": made})

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self.lane.wait()


def on_device(room: Room, device: TwinDevice, name: str) -> LaneInstance:
    parsed = parse_config(config(), name)
    lane = Lane(device, PinnedPool(device))
    instance = LaneInstance(lane, parsed, FUNCTIONS[name])
    room.open(name, parsed, instance)
    return instance


async def test_three_steps_on_a_device_copy_nothing_between_them_and_never_wait(room: Room) -> None:
    device = TwinDevice()
    models = [on_device(room, device, name) for name in FUNCTIONS]
    room.ensemble("chain", CHAIN)
    answer = await room.infer("chain", {"X": np.ones((3, 2), np.float32)})
    assert answer["Y"].tolist() == [[-3, -3]] * 3
    assert models[1].addresses[0][0] == models[0].addresses[0][1]
    assert models[2].addresses[0][0] == models[1].addresses[0][1]
    counts = [room.statistics[name].copied_bytes for name in FUNCTIONS]
    num_bytes = 3 * 2 * 4
    assert {k: n for k, n in counts[0].items() if n} == {CopyKind.HOST_TO_DEVICE: num_bytes}
    assert not any(counts[1].values())
    assert {k: n for k, n in counts[2].items() if n} == {CopyKind.DEVICE_TO_HOST: num_bytes}
    waits = [room.statistics[name].host_synchronisations for name in FUNCTIONS]
    assert waits == [0, 0, 1]
    assert device.num_waits == 1


async def test_a_step_on_the_host_between_two_on_a_device_is_counted(room: Room) -> None:
    device = TwinDevice()
    on_device(room, device, "double")
    room.model("add", config(), lambda given: {"OUT": given["IN"] + 1})
    on_device(room, device, "negate")
    room.ensemble("chain", CHAIN)
    answer = await room.infer("chain", {"X": np.ones((1, 2), np.float32)})
    assert answer["Y"].tolist() == [[-3, -3]]
    assert room.statistics["add"].copied_bytes[CopyKind.DEVICE_TO_HOST] == 8
    assert room.statistics["add"].host_synchronisations == 1


async def test_a_condition_s_tensor_comes_to_the_host_where_it_is_made(room: Room) -> None:
    device = TwinDevice()
    for name in FUNCTIONS:
        on_device(room, device, name)
    chain = ensemble(
        step("double", {"IN": "X"}, {"OUT": "DOUBLED"}),
        step("add", {"IN": "DOUBLED"}, {"OUT": "Y"}),
        add__when="max(DOUBLED) > 0",
    )
    room.ensemble("chain", chain)
    answer = await room.infer("chain", {"X": np.ones((1, 2), np.float32)})
    assert answer["Y"].tolist() == [[3, 3]]
    assert room.statistics["double"].copied_bytes[CopyKind.DEVICE_TO_HOST] == 8
    assert not room.statistics["add"].copied_bytes[CopyKind.HOST_TO_DEVICE]


async def test_an_answer_that_a_step_takes_too_is_copied_to_the_host_once(room: Room) -> None:
    device = TwinDevice()
    for name in ("double", "add"):
        on_device(room, device, name)
    chain = ensemble(
        step("double", {"IN": "X"}, {"OUT": "D"}),
        step("add", {"IN": "D"}, {"OUT": "Y"}),
        more='max_batch_size: 8 output { name: "D" data_type: TYPE_FP32 dims: [2] } '
        'output { name: "Y" data_type: TYPE_FP32 dims: [2] }',
    )
    room.ensemble("chain", chain)
    answer = await room.infer("chain", {"X": np.ones((1, 2), np.float32)})
    assert (answer["D"].tolist(), answer["Y"].tolist()) == ([[2, 2]], [[3, 3]])
    assert room.statistics["double"].copied_bytes[CopyKind.DEVICE_TO_HOST] == 8
    assert device.num_waits == 2


async def test_no_device_memory_is_left_when_an_ensemble_has_answered(room: Room) -> None:
    device = TwinDevice()
    models = [on_device(room, device, name) for name in FUNCTIONS]
    room.ensemble("chain", CHAIN)
    for _ in range(3):
        await room.infer("chain", {"X": np.ones((3, 2), np.float32)})
    async with asyncio.timeout(patience()):
        # An instance's thread lets go of its batch behind the answer, and what it lets go of then
        # is freed by its stream, which computes nothing before somebody waits.
        while device.used_bytes:
            await asyncio.sleep(0.001)
            for model in models:
                model.lane.wait()


async def test_an_ensemble_within_another_keeps_tensors_on_the_device(room: Room) -> None:
    device = TwinDevice()
    for name in FUNCTIONS:
        on_device(room, device, name)
    room.ensemble(
        "inner",
        ensemble(step("double", {"IN": "X"}, {"OUT": "D"}), step("add", {"IN": "D"}, {"OUT": "Y"})),
    )
    room.ensemble(
        "outer",
        ensemble(
            step("inner", {"X": "X"}, {"Y": "MADE"}), step("negate", {"IN": "MADE"}, {"OUT": "Y"})
        ),
    )
    answer = await room.infer("outer", {"X": np.ones((2, 2), np.float32)})
    assert answer["Y"].tolist() == [[-3, -3]] * 2
    assert device.num_waits == 1
    assert not room.statistics["add"].copied_bytes[CopyKind.DEVICE_TO_HOST]
    assert not room.statistics["negate"].copied_bytes[CopyKind.HOST_TO_DEVICE]


async def test_an_output_that_goes_to_a_client_s_memory_on_the_device_stays_there(
    room: Room,
) -> None:
    device = TwinDevice()
    for name in FUNCTIONS:
        on_device(room, device, name)
    room.ensemble("chain", CHAIN)
    sink = room.ask("chain", {"X": np.ones((1, 2), np.float32)}, residence={"Y": Residence.READY})
    await sink.wait()
    (response,) = sink.responses
    (output,) = response.outputs
    assert isinstance(output, DeviceTensor)
    assert device.num_waits == 1, "the last step's thread has waited"
    assert not room.statistics["negate"].copied_bytes[CopyKind.DEVICE_TO_HOST]
    assert output.numpy().tolist() == [[-3, -3]]

"""What a request sticks to reaches the versions of each model that it goes through."""

from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import pytest
from ensemble_room import FunctionInstance, Room, config, ensemble, step
from made_models import made_model

from trivet.backends.api import CheckedRequest, Client, Signature
from trivet.backends.api.model_server import inherited_jointly
from trivet.backends.api.value import changed
from trivet.server.models.schedulers import schedule_of
from trivet.server.models.splitting import Split
from trivet.server.models.traffic import parse_traffic
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.batching import BatchingExecutor
from trivet.server.scheduling.statistics import ModelStatistics

ROWS = np.zeros((1, 2), np.float32)
KEYS = [f"user{number}" for number in range(24)]
HALVES = 'sticky = ["header:x-user"]\n[split]\n1 = 50\n2 = 50\n'


class User:
    """A client whose requests have one header."""

    def __init__(self, name: str) -> None:
        self.name = name

    def given(self, source: str) -> str | None:
        return self.name if source == "header:x-user" else None


class SplitRoom(Room):
    """An ensemble in an ensemble, over a model of two versions that say which they are."""

    arms: dict[int, FunctionInstance]


def _as_many(version: int, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"OUT": given["IN"] * 0 + version}


@pytest.fixture
async def room() -> AsyncIterator[SplitRoom]:
    made = SplitRoom()
    made.arms = {}
    for version in (1, 2):
        computed = partial(_as_many, version)
        instance = FunctionInstance(parse_config(config(), "arm"), computed)
        made.arms[version] = instance
        signature = Signature.from_config(instance.config)
        executor = BatchingExecutor(
            ("arm", version),
            signature,
            [("arm", instance)],
            schedule_of(instance.config, 0),
            ModelStatistics("arm", version),
        )
        made.executors.append(executor)
        model = made_model("arm", signature, executor, version=version, config=instance.config)
        made.registry.publish(model)
    made.ensemble("inner", ensemble(step("arm", {"IN": "X"}, {"OUT": "Y"})))
    made.ensemble("outer", ensemble(step("inner", {"X": "X"}, {"Y": "Y"})))
    made.registry.settle_traffic("arm", parse_traffic(HALVES))
    yield made
    await made.close()


def arms() -> dict[str, int]:
    """Which version each key has when the model itself is asked."""
    split = Split([1, 2], [5000, 5000], "arm")
    return {key: split.choose(key) for key in KEYS}


async def versions(room: Room, clients: list[Client | None]) -> list[int]:
    """Of requests that arrive in one turn of the loop."""
    sinks = [room.ask("outer", {"X": ROWS}, client=client) for client in clients]
    for sink in sinks:
        await sink.wait()
    return [int(sink.responses[0].outputs[0].numpy()[0, 0]) for sink in sinks]


async def test_each_keeps_its_arm_in_all_steps_also_beside_others(
    room: SplitRoom,
) -> None:
    expected = arms()
    assert set(expected.values()) == {1, 2}
    together = await versions(room, [User(key) for key in KEYS])
    alone = [(await versions(room, [User(key)]))[0] for key in KEYS]

    assert together == alone == list(expected.values())


async def test_without_a_split_those_that_arrive_together_are_one_request(room: SplitRoom) -> None:
    room.registry.settle_traffic("arm", parse_traffic('sticky = ["header:x-user"]\n'))
    assert set(await versions(room, [User(key) for key in KEYS[:4]])) == {2}
    assert [request.batch_size for request in room.arms[2].requests] == [4]


def test_what_is_asked_for_several_clients_at_once_is_of_none() -> None:
    user, other = User("a"), User("b")
    parent = CheckedRequest("m", 1, "", {}, client=user)
    asked = {
        "one": [parent, changed(parent)],
        "several": [parent, CheckedRequest("m", 1, "", {}, client=other)],
    }
    found = {name: inherited_jointly(each, "m").client for name, each in asked.items()}

    assert found == {"one": user, "several": None}

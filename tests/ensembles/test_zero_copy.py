"""From step to step nothing is copied: same address, whole batches, no counted byte, no leak."""

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
from ensemble_room import Room, address, config, ensemble, step, until
from fakes import CountingSink

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CopyKind,
    DataType,
    InferRequest,
    PackedBytes,
    RequestContext,
    Tensor,
)
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.statistics import ModelStatistics

CHAIN = ensemble(
    step("double", {"IN": "X"}, {"OUT": "DOUBLED"}),
    step("add", {"IN": "DOUBLED"}, {"OUT": "ADDED"}),
    step("negate", {"IN": "ADDED"}, {"OUT": "Y"}),
)


def fill(room: Room) -> None:
    room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    room.model("add", config(), lambda given: {"OUT": given["IN"] + 1})
    room.model("negate", config(), lambda given: {"OUT": -given["IN"]})


def copied(statistics: ModelStatistics) -> int:
    return sum(statistics.copied_bytes.values())


async def test_a_tensor_has_the_same_address_on_both_sides_of_a_hop(room: Room) -> None:
    double = room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    add = room.model("add", config(), lambda given: {"OUT": given["IN"] + 1})
    negate = room.model("negate", config(), lambda given: {"OUT": -given["IN"]})
    room.ensemble("chain", CHAIN)
    given = np.ones((3, 2), np.float32)

    answer = await room.infer("chain", {"X": given})

    assert address(double.gathered[0]["IN"]) == address(given)
    assert address(add.gathered[0]["IN"]) == address(double.made[0]["OUT"])
    assert address(negate.gathered[0]["IN"]) == address(add.made[0]["OUT"])
    assert address(answer["Y"]) == address(negate.made[0]["OUT"])
    assert [copied(each) for each in room.statistics.values()] == [0, 0, 0, 0]


async def test_a_batch_goes_from_step_to_step_as_one_tensor(room: Room) -> None:
    double = room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    add = room.model("add", config(), lambda given: {"OUT": given["IN"] + 1})
    negate = room.model("negate", config(), lambda given: {"OUT": -given["IN"]})
    room.ensemble("chain", CHAIN)
    sizes = [1, 2, 1, 3, 1]

    answers = await asyncio.gather(
        *(room.infer("chain", {"X": np.full((n, 2), i, np.float32)}) for i, n in enumerate(sizes))
    )

    assert [answer["Y"].tolist() for answer in answers] == [
        [[-(2.0 * i + 1)] * 2] * n for i, n in enumerate(sizes)
    ]
    assert [batch.size for batch in add.batches] == [8]
    assert add.gathered[0]["IN"] is double.made[0]["OUT"]
    assert negate.gathered[0]["IN"] is add.made[0]["OUT"]
    # What the clients sent lay in five places; after that nothing is copied.
    assert room.statistics["chain"].copied_bytes[CopyKind.GATHER] == sum(sizes) * 2 * 4
    assert [copied(room.statistics[name]) for name in ("double", "add", "negate")] == [0, 0, 0]


async def test_what_the_first_step_s_batcher_joined_stays_together(room: Room) -> None:
    """Requests that the ensemble did not join itself, since they have parameters."""
    double = room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    add = room.model("add", config(), lambda given: {"OUT": given["IN"] + 1})
    negate = room.model("negate", config(), lambda given: {"OUT": -given["IN"]})
    room.ensemble("chain", CHAIN)

    answers = await asyncio.gather(
        *(
            room.infer("chain", {"X": np.full((1, 2), i, np.float32)}, parameters={"n": i})
            for i in range(1, 6)
        )
    )

    assert [answer["Y"].tolist() for answer in answers] == [
        [[-(2.0 * i + 1)] * 2] for i in range(1, 6)
    ]
    assert [len(batch.requests) for batch in add.batches] == [5]
    assert add.gathered[0]["IN"] is double.made[0]["OUT"]
    assert negate.gathered[0]["IN"] is add.made[0]["OUT"]
    assert [copied(room.statistics[name]) for name in ("add", "negate", "chain")] == [0, 0, 0]


async def test_only_requests_of_one_tenant_that_nobody_counts_tokens_of_are_joined(
    room: Room,
) -> None:
    """What a step keeps is kept for a tenant, and tokens are counted for who asked."""
    double = room.model("double", config(), lambda given: {"OUT": given["IN"] * 2})
    room.ensemble("chain", ensemble(step("double", {"IN": "X"}, {"OUT": "Y"})))
    counted: list[int] = []
    fields: list[dict[str, Any]] = [{"tenant": tenant} for tenant in "abaa"]
    fields[-1]["on_tokens"] = counted.append

    await asyncio.gather(
        *(room.infer("chain", {"X": np.ones((1, 2), np.float32)}, **each) for each in fields)
    )

    asked = [request for batch in double.batches for request in batch.requests]
    seen = sorted((each.tenant, each.batch_size, each.on_tokens is not None) for each in asked)
    assert seen == [("a", 1, True), ("a", 2, False), ("b", 1, False)]


async def test_texts_of_several_requests_are_joined_packed(room: Room) -> None:
    texts = config({"IN": "BYTES 2"}, {"OUT": "BYTES 2"})
    room.model("upper", texts, lambda given: {"OUT": np.char.upper(given["IN"].astype(bytes))})
    room.model("same", texts, lambda given: {"OUT": given["IN"]})
    room.ensemble(
        "texts",
        ensemble(step("upper", {"IN": "X"}, {"OUT": "T"}), step("same", {"IN": "T"}, {"OUT": "Y"})),
    )
    sinks = []
    for words in ([b"a", b"bc"], [b"", b"def"], [b"g", b"h"]):
        packed = PackedBytes.pack(np.array(words, object))
        tensor = Tensor("X", DataType.BYTES, (1, 2), packed)
        sinks.append(CountingSink())
        room.dispatcher.infer(
            InferRequest("texts", None, "", {"X": tensor}), RequestContext(), sinks[-1]
        )

    for sink in sinks:
        await sink.wait()

    answers = [sink.responses[0].outputs[0].numpy().tolist() for sink in sinks]
    assert answers == [[[b"A", b"BC"]], [[b"", b"DEF"]], [[b"G", b"H"]]]


async def test_a_tensor_that_two_steps_take_is_shared(room: Room) -> None:
    fill(room)
    left = room.model("left", config(), lambda given: {"OUT": given["IN"]})
    right = room.model("right", config(), lambda given: {"OUT": given["IN"]})
    room.ensemble(
        "fork",
        ensemble(
            step("double", {"IN": "X"}, {"OUT": "D"}),
            step("left", {"IN": "D"}, {"OUT": "L"}),
            step("right", {"IN": "D"}, {"OUT": "R"}),
        ),
    )

    await room.infer("fork", {"X": np.ones((1, 2), np.float32)})

    assert address(left.gathered[0]["IN"]) == address(right.gathered[0]["IN"])


async def test_texts_stay_packed_between_steps(room: Room) -> None:
    class Passing:
        def execute(self, batch: Batch) -> None:
            for index, request in enumerate(batch.requests):
                batch.respond(index, [request.inputs["IN"].under("OUT")])

        def is_ready(self) -> bool:
            return True

        def close(self) -> None:
            pass

    texts = config({"IN": "BYTES 1"}, {"OUT": "BYTES 1"})
    for name in ("one", "two"):
        room.open(name, parse_config(texts, name), Passing())
    room.ensemble(
        "texts",
        ensemble(step("one", {"IN": "X"}, {"OUT": "T"}), step("two", {"IN": "T"}, {"OUT": "Y"})),
    )
    packed = PackedBytes.pack(np.array([b"hello"], object))
    tensor = Tensor("X", DataType.BYTES, (1, 1), packed)
    sink = CountingSink()

    room.dispatcher.infer(InferRequest("texts", None, "", {"X": tensor}), RequestContext(), sink)
    await sink.wait()

    assert sink.responses[0].outputs[0].data is packed


async def test_intermediate_tensors_are_freed_when_their_last_taker_has_them(room: Room) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def remembered(values: np.ndarray) -> dict[str, np.ndarray]:
        alive.append(weakref.ref(values))
        return {"OUT": values}

    for name in ("double", "add", "negate"):
        instance = room.model(name, config(), lambda given: remembered(given["IN"] * 2))
        instance.keeps = False
    room.ensemble("chain", CHAIN)
    gc.disable()
    try:
        sink = room.ask("chain", {"X": np.ones((1, 2), np.float32)})
        await sink.wait()
        sink.responses.clear()

        # The last worker's thread lets go of its batch a moment after it has handed it over.
        await until(lambda: all(each() is None for each in alive), "freed all tensors")
        assert len(alive) == 3
    finally:
        gc.enable()


async def test_a_failed_request_leaves_no_tensor_behind(room: Room) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def remembered(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = given["IN"] * 2
        alive.append(weakref.ref(values))
        return {"OUT": values}

    def broken(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise BackendFailed("broken")

    for name, function in (("double", remembered), ("add", remembered), ("negate", broken)):
        room.model(name, config(), function).keeps = False
    room.ensemble("chain", CHAIN)
    sink = room.ask("chain", {"X": np.ones((1, 2), np.float32)})
    await sink.wait()
    assert sink.error is not None
    sink.error = None
    del sink

    def is_all_gone() -> bool:
        gc.collect()
        return all(each() is None for each in alive)

    await until(is_all_gone, "freed all tensors")
    assert len(alive) == 2

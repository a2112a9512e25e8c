"""A decoupled step waits for the steps after it where the config limits what is on its way."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
from ensemble_room import Arrays, Room, config, ensemble, step, until

from trivet.backends.api import BackendFailed, Cancelled, CancelToken

STREAM = config({"IN": "FP32 2"}, {"OUT": "FP32 2"}, batch=0, more="")
PLAIN = config(batch=0, more="")
MOST = 3
MANY = np.full(2, 50, np.float32)


class Producer:
    """As many responses as the first value says; knows how many it was asked for."""

    def __init__(self) -> None:
        self.num_made = 0
        self.ended = threading.Event()

    def __call__(self, given: Arrays) -> Iterator[Arrays]:
        for number in range(int(given["IN"][0])):
            self.num_made += 1
            yield {"OUT": np.full(2, number, np.float32)}
        self.ended.set()


def limited(*steps: str, most: int = MOST) -> str:
    return ensemble(*steps).replace(
        "ensemble_scheduling {", f"ensemble_scheduling {{ max_inflight_requests: {most}"
    )


CHAIN = limited(step("make", {"IN": "X"}, {"OUT": "T"}), step("take", {"IN": "T"}, {"OUT": "Y"}))


def open_chain(room: Room) -> tuple[Producer, threading.Semaphore]:
    """The producer, and what the consumer needs one of for each response."""
    producer, gate = Producer(), threading.Semaphore(0)

    def take(given: Arrays) -> Arrays:
        gate.acquire()
        return {"OUT": given["IN"]}

    room.stream("make", STREAM, producer)  # type: ignore[arg-type]  # an iterator will do
    room.model("take", PLAIN, take)
    room.ensemble("e", CHAIN)
    return producer, gate


async def is_still(producer: Producer, num_made: int) -> bool:
    """Whether that many are made and no more."""
    await until(lambda: producer.num_made >= num_made, f"made {num_made}")
    await asyncio.sleep(0.05)
    return producer.num_made == num_made


async def test_the_producer_makes_one_more_than_may_be_on_their_way(room: Room) -> None:
    producer, gate = open_chain(room)
    sink = room.ask("e", {"X": MANY})

    # One is made and waits to be sent.
    assert await is_still(producer, MOST + 1)
    gate.release(5)
    assert await is_still(producer, MOST + 1 + 5)
    gate.release(50)
    await sink.wait()

    assert [r.outputs[0].numpy()[0] for r in sink.responses] == list(range(50))


async def test_a_producer_that_waits_goes_on_when_its_request_is_cancelled(room: Room) -> None:
    producer, gate = open_chain(room)
    token = CancelToken()
    sink = room.ask("e", {"X": MANY}, cancel=token)
    assert await is_still(producer, MOST + 1)

    token.cancel()
    gate.release(50)

    await sink.wait()
    assert isinstance(sink.error, Cancelled)
    await until(producer.ended.is_set, "ended")


async def test_a_producer_that_waits_goes_on_when_a_later_step_fails(room: Room) -> None:
    producer, gate = Producer(), threading.Event()

    def broken(given: Arrays) -> Arrays:
        gate.wait()
        raise BackendFailed("broken")

    room.stream("make", STREAM, producer)  # type: ignore[arg-type]  # an iterator will do
    room.model("take", PLAIN, broken)
    room.ensemble("e", CHAIN)
    sink = room.ask("e", {"X": MANY})
    assert await is_still(producer, MOST + 1)

    gate.set()

    await sink.wait()
    assert sink.error is not None
    assert sink.error.message == "in ensemble 'e', broken"
    await until(producer.ended.is_set, "ended")


async def test_two_requests_do_not_wait_for_each_other(room: Room) -> None:
    producer, gate = open_chain(room)
    sinks = [room.ask("e", {"X": np.full(2, count, np.float32)}) for count in (20, 30)]
    gate.release(50)

    for sink in sinks:
        await sink.wait()

    assert [len(sink.responses) for sink in sinks] == [20, 30]
    assert producer.num_made == 50


async def test_a_model_that_is_asked_again_further_on_does_not_wait_for_itself(room: Room) -> None:
    room.stream("make", STREAM, Producer())  # type: ignore[arg-type]  # an iterator will do
    room.ensemble(
        "e",
        limited(
            step("make", {"IN": "X"}, {"OUT": "T"}),
            step("make", {"IN": "T"}, {"OUT": "Y"}),
            most=1,
        ),
    )
    sink = room.ask("e", {"X": np.full(2, 4, np.float32)})
    await sink.wait()
    assert sink.error is None
    assert [r.outputs[0].numpy()[0] for r in sink.responses] == [0, 0, 1, 0, 1, 2]


# -- ensembles in ensembles ----------------------------------------------------------------------


def open_nested(room: Room, most_inside: str = "") -> tuple[Producer, threading.Semaphore]:
    """As `open_chain`, with the producer inside an ensemble that is the first step."""
    producer, gate = Producer(), threading.Semaphore(0)

    def take(given: Arrays) -> Arrays:
        gate.acquire()
        return {"OUT": given["IN"]}

    room.stream("make", STREAM, producer)  # type: ignore[arg-type]  # an iterator will do
    room.model("pass", PLAIN, lambda given: {"OUT": given["IN"]})
    room.model("take", PLAIN, take)
    inner = ensemble(
        step("make", {"IN": "IN"}, {"OUT": "T"}), step("pass", {"IN": "T"}, {"OUT": "OUT"})
    )
    room.ensemble("inner", inner.replace("scheduling {", f"scheduling {{ {most_inside}"))
    steps = (step("inner", {"IN": "X"}, {"OUT": "U"}), step("take", {"IN": "U"}, {"OUT": "Y"}))
    room.ensemble("e", limited(*steps))
    return producer, gate


async def test_an_ensemble_that_is_a_step_makes_its_own_steps_wait(room: Room) -> None:
    producer, gate = open_nested(room)
    sink = room.ask("e", {"X": MANY})

    # As many in the outer one, as many in the inner one, and one that waits to be sent.
    assert await is_still(producer, 2 * MOST + 1)
    gate.release(4)
    assert await is_still(producer, 2 * MOST + 1 + 4)
    gate.release(50)
    await sink.wait()

    assert [r.outputs[0].numpy()[0] for r in sink.responses] == list(range(50))


async def test_an_inner_ensemble_s_own_limit_holds_too(room: Room) -> None:
    producer, gate = open_nested(room, "max_inflight_requests: 1")
    sink = room.ask("e", {"X": MANY})
    assert await is_still(producer, MOST + 1 + 1)
    gate.release(60)
    await sink.wait()
    assert len(sink.responses) == 50


async def test_a_model_that_an_inner_ensemble_asks_as_well_does_not_wait_for_itself(
    room: Room,
) -> None:
    room.stream("make", STREAM, Producer())  # type: ignore[arg-type]  # an iterator will do
    room.ensemble("inner", ensemble(step("make", {"IN": "IN"}, {"OUT": "OUT"})))
    steps = (step("inner", {"IN": "X"}, {"OUT": "T"}), step("make", {"IN": "T"}, {"OUT": "Y"}))
    room.ensemble("e", limited(*steps, most=1))
    sink = room.ask("e", {"X": np.full(2, 4, np.float32)})
    await sink.wait()
    assert len(sink.responses) == 6


async def test_cancelling_frees_those_who_wait_inside(room: Room) -> None:
    producer, gate = open_nested(room)
    token = CancelToken()
    sink = room.ask("e", {"X": MANY}, cancel=token)
    assert await is_still(producer, 2 * MOST + 1)
    token.cancel()
    gate.release(50)
    await sink.wait()
    assert isinstance(sink.error, Cancelled)
    await until(producer.ended.is_set, "ended")

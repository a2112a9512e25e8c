"""A step that fails, hangs, vanishes or is cancelled ends only its own request, and says where."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ensemble_room import Arrays, Room, config, ensemble, step, until

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    CancelToken,
    CheckedRequest,
    DeadlineExceeded,
    InferResponse,
    InvalidRequest,
    ModelNotReady,
    Sink,
    Unavailable,
)
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.statistics import FailureReason

ONE = np.ones((1, 2), np.float32)
CHAIN = (step("first", {"IN": "X"}, {"OUT": "T"}), step("second", {"IN": "T"}, {"OUT": "Y"}))


class Manual:
    """An executor that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[CheckedRequest, Sink]] = []
        self.cancelled = 0

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        self.asked.append((request, sink))
        request.cancel.on_cancel(lambda: self._cancel(sink))

    def _cancel(self, sink: Sink) -> None:
        self.cancelled += 1
        sink.fail(Cancelled("request was cancelled"))

    def answer(self, index: int = -1) -> None:
        request, sink = self.asked[index]
        tensor = request.inputs["IN"].under("OUT")
        sink.send(InferResponse("m", 1, request.id, [tensor]), final=True)

    def fail(self, error: Any, index: int = -1) -> None:
        self.asked[index][1].fail(error)

    def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def manual(room: Room, name: str) -> Manual:
    executor = Manual()
    room.publish(name, parse_config(config(), name), executor)
    return executor


def same(given: Arrays) -> Arrays:
    return {"OUT": given["IN"]}


@pytest.mark.more_of("V57")
async def test_a_failing_step_fails_only_its_request(room: Room) -> None:
    def picky(given: Arrays) -> Arrays:
        if (given["IN"] == 2).any():
            raise BackendFailed("no twos")
        return given | same(given)

    room.model("first", config(more=""), picky)
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))
    sinks = [room.ask("e", {"X": ONE * value}) for value in (1, 2, 3)]

    for sink in sinks:
        await sink.wait()

    assert [sink.error and sink.error.message for sink in sinks] == [
        None,
        "in ensemble 'e', no twos",
        None,
    ]
    assert isinstance(sinks[1].error, BackendFailed)
    assert room.statistics["e"].failures[FailureReason.BACKEND] == 1
    assert room.statistics["e"].succeeded.count == 2


async def test_members_of_a_joint_request_are_cancelled_one_by_one(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))
    tokens = [CancelToken() for _ in range(3)]
    sinks = [room.ask("e", {"X": ONE * i}, cancel=token) for i, token in enumerate(tokens)]
    await asyncio.sleep(0)
    assert [request.batch_size for request, _ in first.asked] == [3]

    tokens[1].cancel()
    first.answer()

    for sink in sinks:
        await sink.wait()
    assert [type(sink.error) for sink in sinks] == [type(None), Cancelled, type(None)]
    assert sinks[2].responses[0].outputs[0].numpy().tolist() == [[2, 2]]


async def test_a_joint_request_of_which_nobody_is_left_is_cancelled(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))
    tokens = [CancelToken() for _ in range(2)]
    sinks = [room.ask("e", {"X": ONE}, cancel=token) for token in tokens]
    await asyncio.sleep(0)

    for token in tokens:
        token.cancel()

    assert first.cancelled == 1
    assert all(isinstance(sink.error, Cancelled) for sink in sinks)


async def test_requests_that_ask_for_more_than_rows_go_alone(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))

    room.ask("e", {"X": ONE}, parameters={"mode": 1})
    room.ask("e", {"X": ONE}, sequence_id=5)
    room.ask("e", {"X": ONE}, deadline=1e9)
    for _ in range(2):
        room.ask("e", {"X": np.ones((5, 2), np.float32)})
    await asyncio.sleep(0)

    # The last two do not fit into one batch of 8.
    assert [request.batch_size for request, _ in first.asked] == [1, 1, 1, 5, 5]


async def test_an_inner_ensemble_s_error_names_both(room: Room) -> None:
    def broken(given: Arrays) -> Arrays:
        raise BackendFailed("broken")

    room.model("first", config(), broken)
    room.ensemble("inner", ensemble(step("first", {"IN": "X"}, {"OUT": "Y"})))
    room.ensemble("outer", ensemble(step("inner", {"X": "X"}, {"Y": "Y"})))
    sink = room.ask("outer", {"X": ONE})

    await sink.wait()

    assert sink.error is not None
    assert sink.error.message == "in ensemble 'outer', in ensemble 'inner', broken"


async def test_what_runs_beside_a_failed_step_is_cancelled(room: Room) -> None:
    left, right = manual(room, "first"), manual(room, "second")
    room.ensemble(
        "e",
        ensemble(
            step("first", {"IN": "X"}, {"OUT": "A"}), step("second", {"IN": "X"}, {"OUT": "B"})
        ),
    )
    token = CancelToken()
    sink = room.ask("e", {"X": ONE}, cancel=token)
    await asyncio.sleep(0)

    left.fail(BackendFailed("broken"))

    assert sink.error is not None
    assert sink.error.message == "in ensemble 'e', broken"
    assert right.cancelled == 1
    assert not token.cancelled


async def test_a_cancelled_request_cancels_its_step(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))
    token = CancelToken()
    sink = room.ask("e", {"X": ONE}, cancel=token)
    await asyncio.sleep(0)

    token.cancel()

    assert isinstance(sink.error, Cancelled)
    assert first.cancelled == 1
    assert room.statistics["e"].failures[FailureReason.CANCELED] == 1


async def test_a_step_that_is_unloaded_meanwhile_fails_the_request(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    executor = room.ensemble("e", ensemble(*CHAIN))
    sink = room.ask("e", {"X": ONE})
    await asyncio.sleep(0)
    room.registry.withdraw("second", 1)

    first.answer()

    assert isinstance(sink.error, ModelNotReady)
    assert "in ensemble 'e', Request for unknown model: 'second'" in sink.error.message
    assert not executor.is_ready()


async def test_a_draining_ensemble_answers_what_it_has_taken(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    executor = room.ensemble("e", ensemble(*CHAIN))
    sink = room.ask("e", {"X": ONE})
    draining = asyncio.ensure_future(executor.drain())
    await asyncio.sleep(0)
    late = room.ask("e", {"X": ONE})

    first.answer()
    await draining

    await sink.wait()
    assert sink.error is None
    assert isinstance(late.error, Unavailable)


async def test_a_closed_ensemble_ends_what_is_left(room: Room) -> None:
    manual(room, "first")
    room.model("second", config(), same)
    executor = room.ensemble("e", ensemble(*CHAIN))
    sink = room.ask("e", {"X": ONE})

    await executor.close()

    assert isinstance(sink.error, Unavailable)


async def test_a_late_answer_of_an_ended_request_is_ignored(room: Room) -> None:
    left, right = manual(room, "first"), manual(room, "second")
    room.ensemble(
        "e",
        ensemble(
            step("first", {"IN": "X"}, {"OUT": "A"}), step("second", {"IN": "X"}, {"OUT": "B"})
        ),
    )
    sink = room.ask("e", {"X": ONE})
    await asyncio.sleep(0)
    left.fail(BackendFailed("broken"))

    right.answer()

    assert sink.ends == 1
    assert sink.responses == []


# -- time-outs, retries, fallbacks ---------------------------------------------------------------


async def test_a_step_that_takes_too_long_is_cancelled_and_named(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__timeout_ms="5"))
    sink = room.ask("e", {"X": ONE})

    await sink.wait()

    assert isinstance(sink.error, DeadlineExceeded)
    assert sink.error.message == (
        "in ensemble 'e', step 0 (model 'first') took longer than its timeout_ms of 5"
    )
    assert first.cancelled == 1


@pytest.mark.parametrize("error", [BackendFailed("x"), Unavailable("x")])
async def test_a_failure_that_may_pass_is_tried_again(room: Room, error: Exception) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__retries="2"))
    sink = room.ask("e", {"X": ONE})
    first.fail(error)
    first.fail(error)

    first.answer()

    await sink.wait()
    assert sink.error is None
    assert len(first.asked) == 3
    assert len({id(request) for request, _ in first.asked}) == 3


async def test_a_wrong_request_is_not_tried_again(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__retries="2", first__fallback="second"))
    sink = room.ask("e", {"X": ONE})

    first.fail(InvalidRequest("wrong"))

    assert sink.error is not None
    assert sink.error.message == "in ensemble 'e', wrong"
    assert len(first.asked) == 1


async def test_tries_end(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__retries="1"))
    sink = room.ask("e", {"X": ONE})

    first.fail(BackendFailed("once"))
    first.fail(BackendFailed("twice"))

    assert sink.error is not None
    assert sink.error.message == "in ensemble 'e', twice"


async def test_the_fallback_answers_for_a_model_that_fails_or_is_gone(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.model("spare", config(), lambda given: {"OUT": given["IN"] + 7})
    room.ensemble("e", ensemble(*CHAIN, first__fallback="spare"))
    sink = room.ask("e", {"X": ONE})
    first.fail(BackendFailed("broken"))
    await sink.wait()
    assert [t.numpy().tolist() for t in sink.responses[0].outputs] == [[[8, 8]]]
    room.registry.withdraw("first", 1)

    answer = await room.infer("e", {"X": ONE})

    assert answer["Y"].tolist() == [[8, 8]]


async def test_a_cancelled_request_is_not_tried_again(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__retries="5", first__fallback="second"))
    token = CancelToken()
    sink = room.ask("e", {"X": ONE}, cancel=token)
    await asyncio.sleep(0)

    token.cancel()

    assert isinstance(sink.error, Cancelled)
    assert len(first.asked) == 1


async def test_deadline_and_callers_are_handed_on_to_each_try(room: Room) -> None:
    first = manual(room, "first")
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN, first__retries="1"))
    room.ask("e", {"X": ONE}, deadline=1e9, timeout_us=5)
    first.fail(BackendFailed("x"))

    requests = [request for request, _ in first.asked]

    assert [(r.deadline, r.timeout_us, r.callers) for r in requests] == [(1e9, 5, ("e",))] * 2


async def test_reloads_of_a_step_under_load_lose_no_request(room: Room) -> None:
    """The long form of this is the soak test of the whole server."""
    gate = threading.Event()
    room.model("first", config(), same)
    room.model("second", config(), same)
    room.ensemble("e", ensemble(*CHAIN))
    answered = 0

    async def client() -> None:
        nonlocal answered
        while not gate.is_set():
            await room.infer("e", {"X": ONE})
            answered += 1

    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    for _ in range(10):
        target = answered + 20
        await until(_at_least(lambda: answered, target), "twenty more answers")
        old = room.registry.routers.resolve("second", None).model.executor
        room.model("second", config(), same)
        await old.drain()
        await old.close()
    gate.set()
    await asyncio.gather(*clients)

    assert answered >= 200
    assert room.statistics["e"].failed.count == 0


def _at_least(count: Callable[[], int], target: int) -> Callable[[], bool]:
    return lambda: count() >= target

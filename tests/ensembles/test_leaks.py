"""However a request ends, none of the tensors between its steps is left behind."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from ensemble_room import Arrays, Room, config, ensemble, step, until
from fakes import CountingSink
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    CancelToken,
    DeadlineExceeded,
    ModelNotReady,
    ServingError,
    Unavailable,
)
from trivet.ensembles.wave import Wave

ONE = np.ones((1, 2), np.float32)
CHAIN = (
    step("first", {"IN": "X"}, {"OUT": "T"}),
    step("second", {"IN": "T"}, {"OUT": "U"}),
    step("last", {"IN": "U"}, {"OUT": "Y"}),
)


class Scene:
    """A chain of three steps, of which the last waits for a gate, and every array they made."""

    def __init__(self, room: Room, **settings: str) -> None:
        self.room = room
        self.gate = threading.Event()
        self.is_last_asked = threading.Event()
        self.made: list[weakref.ref[np.ndarray]] = []
        self.fails = False
        for name, function in (("first", self.plain), ("second", self.plain), ("last", self.last)):
            room.model(name, config(), function).keeps = False
        self.executor = room.ensemble("e", ensemble(*CHAIN, **settings))

    def plain(self, given: Arrays) -> Arrays:
        values = given["IN"] + 1
        self.made.append(weakref.ref(values))
        return {"OUT": values}

    def last(self, given: Arrays) -> Arrays:
        self.is_last_asked.set()
        self.gate.wait(patience())
        if self.fails:
            raise BackendFailed("broken")
        return self.plain(given)

    async def ask(self, token: CancelToken | None = None) -> CountingSink:
        """A request that has come to the last step."""
        sink = self.room.ask("e", {"X": ONE}, cancel=token)
        await until(self.is_last_asked.is_set, "asked the last step")
        return sink

    async def ends(self, sink: CountingSink, error: type[ServingError] | None) -> None:
        """The request ends so, and then nothing of it is left."""
        await sink.wait()
        assert isinstance(sink.error, error) if error else sink.error is None
        self.gate.set()
        sink.responses.clear()
        sink.error = None
        await until(self.is_all_gone, "freed all tensors")
        assert len(self.made) >= 2

    def is_all_gone(self) -> bool:
        gc.collect()
        return all(ref() is None for ref in self.made)


async def test_after_an_answer(room: Room) -> None:
    scene = Scene(room)
    scene.gate.set()
    await scene.ends(await scene.ask(), None)
    assert len(scene.made) == 3


async def test_after_a_failure_and_its_retries(room: Room) -> None:
    scene = Scene(room, last__retries="2")
    scene.fails = True
    scene.gate.set()
    await scene.ends(await scene.ask(), BackendFailed)


async def test_after_a_time_out(room: Room) -> None:
    scene = Scene(room, last__timeout_ms="20")
    await scene.ends(await scene.ask(), DeadlineExceeded)


async def test_after_a_cancellation(room: Room) -> None:
    scene, token = Scene(room), CancelToken()
    sink = await scene.ask(token)
    token.cancel()
    scene.gate.set()
    await scene.ends(sink, Cancelled)


async def test_after_a_step_was_unloaded(room: Room) -> None:
    scene = Scene(room, last__retries="1")
    scene.fails = True
    sink = await scene.ask()
    room.registry.withdraw("last", 1)
    scene.gate.set()
    await scene.ends(sink, ModelNotReady)


async def test_after_the_ensemble_was_closed(room: Room) -> None:
    scene = Scene(room)
    sink = await scene.ask()
    await scene.executor.close()
    await scene.ends(sink, Unavailable)


@pytest.mark.parametrize(
    "settings", [{"second__return_if": "max(U) > 0"}, {"last__when": "max(U) < 0"}]
)
async def test_after_an_answer_without_the_last_step(room: Room, settings: dict[str, str]) -> None:
    scene = Scene(room, **settings)
    await scene.ends(room.ask("e", {"X": ONE}), None)
    assert not scene.is_last_asked.is_set()


async def test_after_a_stream_that_was_cancelled_half_way(room: Room) -> None:
    gate, made = threading.Semaphore(0), []

    def remembered(function: Callable[[Arrays], np.ndarray], given: Arrays) -> Arrays:
        values = function(given)
        made.append(weakref.ref(values))
        return {"OUT": values}

    def many(given: Arrays) -> list[Arrays]:
        return [remembered(lambda g: g["IN"] + 1, given) for _ in range(20)]

    def slow(given: Arrays) -> Arrays:
        gate.acquire()
        return remembered(lambda g: g["IN"] * 2, given)

    plain = config({"IN": "FP32 2"}, {"OUT": "FP32 2"}, batch=0, more="")
    room.stream("many", plain, many)
    room.model("slow", plain, slow).keeps = False
    room.ensemble(
        "e",
        ensemble(step("many", {"IN": "X"}, {"OUT": "T"}), step("slow", {"IN": "T"}, {"OUT": "Y"})),
    )
    token = CancelToken()
    sink = room.ask("e", {"X": np.ones(2, np.float32)}, cancel=token)
    gate.release(5)
    await until(lambda: len(sink.responses) == 5, "answered five")

    token.cancel()
    gate.release(20)
    await sink.wait()
    sink.responses.clear()

    def is_all_gone() -> bool:
        gc.collect()
        return len(made) >= 25 and all(ref() is None for ref in made)

    await until(is_all_gone, "freed all tensors")
    await asyncio.sleep(0)


async def test_a_stream_whose_step_lacks_what_it_needs_ends_with_that_error(room: Room) -> None:
    plain = config({"IN": "FP32 2"}, {"OUT": "FP32 2"}, batch=0, more="")
    room.stream("many", plain, lambda given: [{"OUT": given["IN"]}] * 3)
    room.model("nothing", plain, lambda given: {})
    room.model("last", plain, lambda given: {"OUT": given["IN"]})
    steps = (
        step("many", {"IN": "X"}, {"OUT": "T"}),
        step("nothing", {"IN": "T"}, {"OUT": "U"}),
        step("last", {"IN": "U"}, {"OUT": "Y"}),
    )
    room.ensemble("e", ensemble(*steps))
    sink = room.ask("e", {"X": np.ones(2, np.float32)})
    await sink.wait()
    assert sink.error is not None
    assert "step 1 (model 'nothing') did not give output 'OUT'" in sink.error.message


LISTS = """
input { name: "X" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ -1, 2 ] }
"""


# -- garbage -------------------------------------------------------------------------------------


async def test_nothing_of_a_request_is_left_to_the_garbage_collector(room: Room) -> None:
    """A collection of a large server's heap holds everybody up for tens of milliseconds."""
    plain = config({"IN": "FP32 2"}, {"OUT": "FP32 2"}, batch=0, more="")
    room.stream("many", plain, lambda given: [{"OUT": given["IN"]}] * 3)
    room.model("plain", plain, lambda given: {"OUT": given["IN"]}).keeps = False
    steps = (step("many", {"IN": "X"}, {"OUT": "T"}), step("plain", {"IN": "T"}, {"OUT": "Y"}))
    room.ensemble("stream", ensemble(*steps))
    each = step("plain", {"IN": "X"}, {"OUT": "Y"})
    room.ensemble("guarded", ensemble(each, plain__retries="1", plain__timeout_ms="9000"))
    room.ensemble("mapped", ensemble(each, more=LISTS, plain__map="X"))
    Scene(room).gate.set()

    async def ask_all() -> None:
        sinks = [room.ask("e", {"X": ONE}) for _ in range(8)]
        sinks += [room.ask("e", {"X": ONE}, parameters={"n": 1})]
        sinks += [room.ask("stream", {"X": np.ones(2, np.float32)}) for _ in range(2)]
        sinks += [room.ask("guarded", {"X": np.ones(2, np.float32)})]
        sinks += [room.ask("mapped", {"X": np.ones((3, 2), np.float32)})]
        for sink in sinks:
            await sink.wait()
            assert sink.error is None

    def num_left() -> int:
        names = {"_Run", "MergedSink", "Member", "Stream", "GuardedCall", "MappedCall", "_Try"}
        kinds = [type(o) for o in gc.get_objects()]
        found = [kind for kind in kinds if kind is Wave or kind.__name__ in names]
        # PyTorch has a Stream, too.
        return sum(kind.__module__.startswith("trivet.") for kind in found)

    gc.collect()
    gc.disable()
    try:
        await ask_all()
        await until(lambda: num_left() == 0, "let go of all requests")
    finally:
        gc.enable()

"""Random graphs with conditions, streams, missing outputs, failures and clients that leave: every
request ends once, nothing is raised into the event loop, and nothing is left in progress."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ensemble_room import Arrays, Room, config, ensemble, step
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from patience import patience

from trivet.backends.api import BackendFailed, CancelToken, InvalidConfig

PLAIN = config({"IN": "FP32 1"}, {"OUT": "FP32 1"}, batch=0, more="")


def double(inputs: Arrays) -> Arrays:
    return {"OUT": inputs["IN"] * 2 + 1}


def fail_some(inputs: Arrays) -> Arrays:
    if int(inputs["IN"][0]) % 5 == 0:
        raise BackendFailed("no fives")
    return double(inputs)


def lack_some(inputs: Arrays) -> Arrays:
    return {} if int(inputs["IN"][0]) % 3 == 0 else double(inputs)


def some(inputs: Arrays) -> Iterator[Arrays]:
    """None to three responses."""
    for number in range(int(inputs["IN"][0]) % 4):
        yield {"OUT": inputs["IN"] + np.float32(number)}


INNER = ensemble(
    step("some", {"IN": "IN"}, {"OUT": "T"}), step("double", {"IN": "T"}, {"OUT": "OUT"})
)
STREAMS = ("some", "inner")
MODELS = ("double", "fail_some", "lack_some", *STREAMS)


@dataclass(frozen=True)
class Node:
    """A step of a random graph."""

    model: str
    taken: str
    settings: dict[str, str]


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Up to seven steps, each of a tensor that is there before it."""
    tensors, nodes = ["X"], []
    for number in range(draw(st.integers(1, 7))):
        model = draw(st.sampled_from(MODELS))
        taken = draw(st.sampled_from(tensors[-3:]))
        settings = {}
        if draw(st.integers(0, 4)) == 0:
            settings["when"] = f"max({taken}) > {draw(st.integers(0, 20))}"
        if model not in STREAMS and draw(st.integers(0, 5)) == 0:
            settings["return_if"] = f"max(T{number}) > {draw(st.integers(0, 40))}"
        if model == "fail_some" and draw(st.booleans()):
            settings["retries"] = "1"
        if model == "fail_some" and draw(st.booleans()):
            settings["fallback"] = "double"
        tensors.append(f"T{number}")
        nodes.append(Node(model, taken, settings))
    return nodes


@dataclass(frozen=True)
class Asked:
    """A request, and after how many turns of the loop its client leaves; None: it stays."""

    value: int
    leaves_after: int | None


requests = st.lists(
    st.builds(Asked, st.integers(0, 30), st.none() | st.integers(0, 12)), min_size=1, max_size=6
)


@settings(max_examples=80, deadline=None)
@given(graphs(), requests, st.integers(0, 2))
def test_every_request_ends_once_whatever_happens(
    nodes: list[Node], asked: list[Asked], most: int
) -> None:
    asyncio.run(_check(nodes, asked, most))


async def _check(nodes: list[Node], asked: list[Asked], most: int) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    room = Room()
    for function in (double, fail_some, lack_some):
        room.model(function.__name__, PLAIN, function)
    room.stream("some", PLAIN, some)  # type: ignore[arg-type]  # an iterator will do
    room.ensemble("inner", INNER)
    try:
        executor = room.ensemble("e", _config(nodes, most))
    except InvalidConfig as error:
        await room.close()
        # The one thing that these graphs may get wrong.
        assume("two decoupled steps" not in str(error))
        raise
    ends = [asyncio.ensure_future(_ask(room, each)) for each in asked]
    await asyncio.wait_for(asyncio.gather(*ends), patience())
    await asyncio.wait_for(executor.drain(), patience())
    statistics = room.statistics["e"]
    assert statistics.succeeded.count + statistics.failed.count == len(asked)
    await room.close()
    assert raised == []


async def _ask(room: Room, asked: Asked) -> None:
    token = CancelToken()
    sink = room.ask("e", {"X": np.full(1, asked.value, np.float32)}, cancel=token)
    if asked.leaves_after is not None:
        for _ in range(asked.leaves_after):
            await asyncio.sleep(0)
        token.cancel()
    await sink.wait()
    assert sink.ends == 1


def _config(nodes: list[Node], most: int) -> str:
    steps = [step(n.model, {"IN": n.taken}, {"OUT": f"T{i}"}) for i, n in enumerate(nodes)]
    given = {
        f"step{number}__{name}": value
        for number, node in enumerate(nodes)
        for name, value in node.settings.items()
    }
    text = ensemble(*steps, **given)
    limit = f"max_inflight_requests: {most}"
    return text.replace("ensemble_scheduling {", f"ensemble_scheduling {{ {limit}")

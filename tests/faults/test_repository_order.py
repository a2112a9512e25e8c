"""Whatever many clients do to a model at once, what they see has an order in which it is right.

The specification, of one model and of clients that take turns (`repository_specification.py`):

- Loads and unloads are one after another. A load begins when no other one is under way; an unload
  takes all versions out of service at one moment, at which no load is under way.
- A load publishes each of its versions at the moment when that is ready, in any order. After the
  last one, and not before, the versions that are not wanted any more go, all together. So a load is
  several moments, all of them within its call: meanwhile a newer version may answer beside an older
  one, but none that served and is wanted is missing.
- A load whose config is wrong changes nothing. One without a config of its own loads what lies in
  the folder, also where an override serves.
- A request is answered by the version that serves at one moment between its call and its answer:
  the one that it names, otherwise the newest. An unload returns when the model accepts no more;
  what was accepted before is still answered, by the version that accepted it.
- Where no version serves a request is refused: 503 while a load is under way, otherwise 404. Where
  others than the one it names serve: 404. Before the first load the name is unknown: 400.
- `ready` says whether such a request would have been accepted.
- The index lists as READY the versions that serve, and as LOADING nothing but what a load that is
  under way has yet to publish. UNLOADING and UNAVAILABLE say no more than that a version does not
  serve: this leaves open when the last answer of a version that drains is given.
- A load whose client hangs up happens as a whole or not at all.

Models do not know each other, so each has a history of its own; of the index each takes its rows.
A race that is run again need not come out the same, so hypothesis plans the races and does not see
how they end: it has nothing to shrink.
"""

import asyncio
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fault_load import bystanders, callers
from fault_models import write_model
from fault_room import MIB, Room
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from linearizability import Operation, Refutation, refute
from repository_race import (
    VERSIONS,
    AskReady,
    History,
    Index,
    Infer,
    LoadFolder,
    LoadVersions,
    Step,
    Unload,
    race,
    write_models,
)
from repository_specification import Event, Listed, Refused, Repository, State, WasReady
from serving import RunningServer

Serve = Callable[..., RunningServer]
NUM_RACES = 12
NUM_LONG_RACES = int(os.environ.get("TRIVET_RACES", "600"))
NUM_CLIENTS = 5
MODELS = ("a", "b")
# The names of all models and the statistics of their versions stay, and each race has new ones.
MAX_GROWTH_BYTES = 32 * MIB + NUM_LONG_RACES * MIB // 8

model = st.sampled_from(MODELS)
version = st.sampled_from(sorted(VERSIONS))
loads = st.builds(
    LoadVersions,
    model,
    st.frozensets(version),
    delay_ms=st.sampled_from((0, 0, 3, 20)),
    is_abandoned=st.sampled_from((False, False, False, True)),
)
steps: st.SearchStrategy[Step] = st.one_of(
    loads,
    st.builds(LoadFolder, model),
    st.builds(Unload, model),
    st.builds(Infer, model, st.none()),
    st.builds(Infer, model, version),
    st.builds(AskReady, model, st.none() | version),
    st.just(Index()),
)
plans = st.lists(
    st.lists(steps, min_size=5, max_size=14), min_size=NUM_CLIENTS, max_size=NUM_CLIENTS
)


class Races:
    """Races models of a server as hypothesis plans them, and judges what was seen."""

    def __init__(self, room: Room) -> None:
        self.refutations: list[Refutation[State, Event]] = []
        self.seen: Counter[str] = Counter()
        """Operations by kind, with what was answered."""
        self._room = room
        self._numbers = itertools.count(1)

    def run(self, num_races: int) -> None:
        """So many of them, one after another."""
        with asyncio.Runner() as runner:

            @settings(
                max_examples=num_races,
                phases=[Phase.generate],
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            )
            @given(plans)
            def run_one(plans: list[list[Step]]) -> None:
                self._race(runner, plans)

            run_one()

    def _race(self, runner: asyncio.Runner, plans: list[list[Step]]) -> None:
        number = next(self._numbers)
        # A load that was abandoned may come late, so no two races have a model in common.
        names = [f"{model}{number}" for model in MODELS]
        write_models(self._room.repository, names)
        renamed = [[_renamed(step, number) for step in plan] for plan in plans]
        histories = runner.run(race(self._room.server, names, renamed))
        for name in names:
            self._judge(histories[name])
            shutil.rmtree(self._room.repository / name)
            assert self._room.post(f"/v2/repository/models/{name}/unload", b"{}").status == 200

    def _judge(self, history: History) -> None:
        self.seen.update(_kind(each) for each in history)
        refutation = refute(history, Repository())
        if refutation is not None:
            self.refutations.append(refutation)

    def assert_ordered(self) -> None:
        """Raises with the shortest history that has no order."""
        assert self.seen.keys() >= {"Ended", "Unloaded", "Answered", "Refused 404", "Listed"}
        shortest = min(self.refutations, key=lambda each: len(each.history), default=None)
        if shortest is not None:
            pytest.fail(f"{len(self.refutations)} histories have none; the shortest:\n{shortest}")


def _renamed(step: Step, number: int) -> Step:
    return step if isinstance(step, Index) else replace(step, model=f"{step.model}{number}")


def _kind(operation: Operation[Event]) -> str:
    kind = type(operation.event).__name__
    match operation.event:
        case Refused(_, refusal):
            return f"{kind} {refusal.value}"
        case WasReady(_, is_ready):
            return f"{kind} {is_ready}"
        case Listed(_, loading) if loading:
            return f"{kind} loading"
    return f"{kind} perhaps" if operation.returned is None else kind


@pytest.fixture
def room(serve: Serve, models: Path) -> Iterator[Room]:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    room = Room(serve(models, "--model-control-mode=explicit", "--load-model=good"), models)
    yield room
    room.assert_unharmed()
    room.assert_settled(MAX_GROWTH_BYTES)
    room.close()
    assert room.server.stop() == 0


def assert_ordered(room: Room, num_races: int) -> None:
    races = Races(room)
    with callers() as running:
        bystanders(running, room)
        races.run(num_races)
    print(dict(races.seen))
    assert running.faults == []
    races.assert_ordered()


def test_what_clients_see_of_models_that_they_change_at_once_has_an_order(room: Room) -> None:
    assert_ordered(room, NUM_RACES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_however_often_it_is_tried_what_clients_see_has_an_order(room: Room) -> None:
    assert_ordered(room, NUM_LONG_RACES)

"""Who is let in with an adapter, who waits, and whose slot is given away."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trivet.backends.api import LoadFailed, Sampling, Unavailable
from trivet.backends.llm.adapters.adapter import Adapter, AdapterFiles, LowRank
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.adapters.residency import Residency
from trivet.backends.llm.engine.adapting import AdapterDesk, ReadAdapter
from trivet.backends.llm.engine.intake import Intake
from trivet.backends.llm.messages import AdapterRead, LoadAdapter, Message, Submit


class SlowReader:
    """Reads when the test says so."""

    def __init__(self) -> None:
        self.wanted: list[str] = []

    def read(self, wanted: LoadAdapter) -> None:
        self.wanted.append(wanted.key)

    def close(self) -> None:
        pass


class Room:
    """A desk whose reading takes as long as the test wants."""

    def __init__(self, num_slots: int, budget: int | None = None) -> None:
        self.sent: list[Message] = []
        reader = SlowReader()
        self.wanted = reader.wanted
        self.stamps: dict[str, int] = {}
        self.matrices: dict[str, dict[tuple[int, int], LowRank]] = {}
        self.bank = AdapterBank(torch.float32, torch.device("cpu"), 8)
        self.desk = AdapterDesk(self.bank, Residency(num_slots, budget), reader, self.sent.append)

    def adapter(self, key: str) -> Adapter:
        files = AdapterFiles({}, b"", ((self.stamps.get(key, 0), 0, 0),))
        return Adapter(self.matrices.get(key, {}), None, None, 96, 4, files)

    def load(self, *keys: str) -> None:
        for key in keys:
            self.desk.load(LoadAdapter(key, key, f"/{key}"))
            self.arrive()

    def arrive(self) -> list[str]:
        """What is being read has been read; the requests that are let in then."""
        let_in: list[str] = []
        while self.wanted:
            key = self.wanted.pop(0)
            failed = self.desk.take(ReadAdapter(key, self.adapter(key), None))
            let_in += [f"{each.id} failed" for each, _ in failed] + self.let_in()
        return let_in

    def let_in(self) -> list[str]:
        return [each.id for each in self.desk.let_in()]

    def ask(self, request_id: str, key: str) -> bool:
        return self.desk.admit(Submit(request_id, [1], Sampling(), 0, [], [], adapter=key))


@pytest.fixture
def room() -> Room:
    return Room(2)


def test_what_was_read_is_told(room: Room) -> None:
    room.load("a")
    assert room.sent == [AdapterRead("a", vocabulary_size=96)]


def test_an_adapter_with_a_slot_lets_requests_in_at_once(room: Room) -> None:
    room.load("a", "b")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert room.ask("3", "a")
    assert not room.wanted


def test_one_that_is_only_loaded_takes_no_others_slot(room: Room) -> None:
    room.load("a", "b", "c")
    assert room.ask("1", "a")
    assert room.ask("2", "b")


def test_the_least_recently_used_of_those_nobody_uses_makes_room(room: Room) -> None:
    room.load("a", "b", "c")
    for number, key in enumerate("aba"):
        assert room.ask(str(number), key)
        room.desk.end(str(number))
    assert not room.ask("c", "c")
    assert room.arrive() == ["c"]
    assert room.ask("a", "a")
    assert not room.ask("b", "b")


def test_a_slot_in_use_is_not_given_away(room: Room) -> None:
    room.load("a", "b", "c")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert not room.ask("3", "c")
    assert not room.wanted  # there is no room for it yet
    room.desk.end("2")
    assert room.let_in() == []
    assert room.wanted == ["c"]
    assert room.arrive() == ["3"]
    assert room.ask("4", "a")


def test_nobody_passes_those_who_wait(room: Room) -> None:
    room.load("a", "b", "c")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert not room.ask("3", "c")
    assert not room.ask("4", "a")  # else c might wait for ever
    room.desk.end("1")
    room.let_in()
    assert room.arrive() == ["3"]
    room.desk.end("2")
    assert room.let_in() == []
    assert room.arrive() == ["4"]


def test_one_who_waits_may_leave(room: Room) -> None:
    room.load("a", "b", "c")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert not room.ask("3", "c")
    assert not room.ask("4", "a")
    room.desk.abort("3")
    assert room.let_in() == ["4"]
    assert room.desk.num_waiting == 0


def test_an_adapter_unloaded_while_it_computes_leaves_with_its_last_request(room: Room) -> None:
    room.load("a")
    assert room.ask("1", "a")
    assert room.ask("2", "a")
    assert room.desk.unload("a") == []
    with pytest.raises(Unavailable, match="not loaded any more"):
        room.ask("3", "a")
    slot = room.desk.slot_of(Submit("1", [1], Sampling(), 0, [], [], adapter="a"))
    assert slot
    room.desk.end("1")
    assert room.bank.has(slot)
    room.desk.end("2")
    assert not room.bank.has(slot)
    room.load("b", "c")
    assert room.ask("4", "b")
    assert room.ask("5", "c")


def test_unloading_refuses_those_who_wait_for_its_slot(room: Room) -> None:
    room.load("a", "b", "c")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert not room.ask("3", "c")
    assert not room.ask("4", "b")
    ((submit, error),) = room.desk.unload("c")
    assert submit.id == "3"
    assert "unloaded while the request waited" in error.message
    assert room.let_in() == ["4"]


def test_unloaded_while_it_is_read_it_gets_no_slot(room: Room) -> None:
    room.desk.load(LoadAdapter("a", "a", "/a"))
    room.desk.unload("a")
    room.arrive()
    room.load("b", "c")
    assert room.ask("1", "b")
    assert room.ask("2", "c")


def test_one_that_cannot_be_read_costs_no_other_its_slot(room: Room) -> None:
    room.load("a", "b")
    room.desk.load(LoadAdapter("x", "x", "/x"))
    room.wanted.clear()
    room.desk.take(ReadAdapter("x", None, LoadFailed("it is torn")))
    assert room.sent[-1] == AdapterRead("x", "it is torn")
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    with pytest.raises(Unavailable):
        room.ask("3", "x")


def test_files_that_have_changed_are_not_read_under_the_old_name(room: Room) -> None:
    room.load("a", "b", "c")
    assert not room.ask("1", "c")
    room.stamps["c"] = 5
    assert room.arrive() == ["1 failed"]
    assert room.ask("2", "a")
    assert room.ask("3", "b")


def intake(room: Room, images: Any = None) -> tuple[Intake, list[str]]:
    """Before a desk; whom it lets in."""
    let_in: list[str] = []

    def refuse(request_id: str, error: Exception) -> None:
        raise AssertionError(f"{request_id} is refused: {error}")

    def add(submit: Submit, _: object) -> None:
        let_in.append(submit.id)

    grammars: Any = None
    made = Intake(grammars, lambda _: room.desk, lambda _: None, add, refuse, images)
    return made, let_in


def test_who_is_behind_one_who_leaves_is_let_in(room: Room) -> None:
    room.load("a", "b", "c")
    way, let_in = intake(room)
    for request_id, key in (("1", "a"), ("2", "b"), ("3", "c"), ("4", "a")):
        way.receive(Submit(request_id, [1], Sampling(), 0, [], [], adapter=key))
    assert let_in == ["1", "2"]
    way.abort("3")
    assert let_in == ["1", "2", "4"]


def test_one_who_leaves_while_images_are_looked_at_gives_its_adapter_back() -> None:
    room = Room(1)
    room.load("a", "b")
    nothing = lambda _: None  # noqa: E731
    way, _ = intake(room, SimpleNamespace(open=nothing, take=nothing, release=nothing))
    image: Any = None
    way.receive(Submit("1", [1], Sampling(), 0, [], [], adapter="a", images=[image]))
    way.abort("1")
    assert not room.ask("2", "b")
    assert room.arrive() == ["2"]


def of_bytes(size: int) -> dict[tuple[int, int], LowRank]:
    """Of an adapter that takes so many, half in a step's stack."""
    return {(0, 0): LowRank(torch.zeros(size // 8), torch.zeros(0))}


def test_those_with_a_slot_keep_within_the_budget() -> None:
    room = Room(8, budget=1000)
    room.matrices = {"a": of_bytes(400), "b": of_bytes(400), "c": of_bytes(400), "d": of_bytes(960)}
    room.load("a", "b", "c", "d")
    assert [room.bank.has(slot) for slot in (1, 2, 3)] == [True, True, False]
    assert room.ask("1", "a")
    assert room.ask("2", "b")
    assert not room.ask("3", "d"), "for which both must go"
    assert not room.ask("4", "c"), "which is behind it"
    assert room.wanted == []
    room.desk.end("1")
    assert room.let_in() == []
    assert room.wanted == [], "there is no room yet"
    room.desk.end("2")
    assert room.let_in() == []
    assert room.arrive() == ["3"]
    assert sum(room.bank.has(slot) for slot in range(1, 9)) == 1
    room.desk.end("3")
    assert room.let_in() == []
    assert room.arrive() == ["4"]
    assert sum(room.bank.has(slot) for slot in range(1, 9)) == 1

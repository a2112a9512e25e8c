"""What is kept of responses stays within its bounds, and belongs to one key."""

import json
from typing import Any, cast

import pytest

from trivet.backends.api import InvalidRequest, Unavailable
from trivet.server.http.openai.responses.background import Background
from trivet.server.http.openai.responses.errors import PreviousResponseNotFound, ResponseNotFound
from trivet.server.http.openai.responses.store import Record, ResponseStore

ME, OTHER = b"me", b"other"


class Running:
    """Stands for what runs in the background."""

    num_bytes = 0
    is_over = False

    def document(self) -> dict[str, Any]:
        return {"output": []}


def record(name: str, previous: str | None = None, *, owner: bytes = ME, size: int = 0) -> Record:
    """One with an item of input and one of output."""
    items = [{"id": f"in_{name}", "text": "x" * size}]
    document = {"output": [{"id": f"out_{name}"}]}
    ids = (f"in_{name}", f"out_{name}")
    texts = [json.dumps(each).encode() for each in (items, document)]
    ids = (f"in_{name}", f"out_{name}")
    return Record(name, owner, previous, texts[0], texts[1], item_ids=ids)


def running(name: str) -> Record:
    return Record(name, ME, None, b"[]", background=cast(Background, Running()))


def names(store: ResponseStore, *wanted: str) -> list[str]:
    """Those that are kept."""
    found = []
    for name in wanted:
        try:
            found.append(store.get(name, ME).id)
        except ResponseNotFound:
            continue
    return found


def test_the_least_recently_used_leaves_first() -> None:
    store = ResponseStore(2, 1 << 20)
    store.put(record("a"))
    store.put(record("b"))
    store.get("a", ME)
    store.put(record("c"))
    assert names(store, "a", "b", "c") == ["a", "c"]


def test_bytes_are_bounded_and_counted_back() -> None:
    store = ResponseStore(100, 20_000)
    for number in range(50):
        store.put(record(f"r{number}", size=3000))
        assert store.num_bytes <= 20_000
    kept = names(store, *(f"r{number}" for number in range(50)))
    assert kept == [f"r{number}" for number in range(50 - len(kept), 50)]
    for name in kept:
        store.drop(store.get(name, ME))
    assert (len(store), store.num_bytes) == (0, 0)
    assert store.items({f"in_r{number}" for number in range(50)}, ME) == {}


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    store = ResponseStore(100, 5000)
    store.put(record("a"))
    store.put(record("b", size=6000))
    assert names(store, "a", "b") == ["a"]


def test_what_becomes_larger_than_all_room_leaves_alone() -> None:
    store = ResponseStore(100, 5000)
    store.put(record("a"))
    before = store.num_bytes
    made = running("b")
    store.put(made)
    made.background, made.document = None, b"x" * 6000
    store.put(made)
    assert names(store, "a", "b") == ["a"]
    assert store.num_bytes == before


def test_a_record_that_is_put_again_is_counted_once() -> None:
    store = ResponseStore(10, 1 << 20)
    made = running("a")
    store.put(made)
    before = store.num_bytes
    made.document = b"x" * 1000
    store.put(made)
    assert store.num_bytes == before + 1000
    assert len(store) == 1


def test_what_runs_is_never_evicted_and_leaves_no_room_for_more_of_it() -> None:
    store = ResponseStore(2, 1 << 20)
    store.put(running("a"))
    store.put(running("b"))
    store.put(record("c"))
    assert names(store, "a", "b", "c") == ["a", "b"]
    with pytest.raises(Unavailable, match="--response-store-count"):
        store.put(running("d"))


def test_what_runs_leaves_no_room_for_more_once_it_has_told_much() -> None:
    store = ResponseStore(10, 10_000)
    made = running("a")
    store.put(made)
    store.put(running("b"))
    told = cast("Running", made.background)
    told.num_bytes = 9000
    with pytest.raises(Unavailable, match="--response-store-size"):
        store.put(running("c"))
    assert names(store, "a", "b", "c") == ["a", "b"]
    told.num_bytes = 0
    store.put(running("c"))


def test_a_conversation_is_a_chain_with_the_oldest_items_first() -> None:
    store = ResponseStore(10, 1 << 20)
    store.put(record("a"))
    store.put(record("b", "a"))
    told = [item["id"] for item in store.conversation("b", ME)]
    assert told == ["in_a", "out_a", "in_b", "out_b"]
    assert store.conversation(None, ME) == []


def test_a_conversation_without_its_beginning_cannot_go_on() -> None:
    store = ResponseStore(10, 1 << 20)
    store.put(record("a"))
    store.put(record("b", "a"))
    store.drop(store.get("a", ME))
    with pytest.raises(PreviousResponseNotFound, match="'a'"):
        store.conversation("b", ME)


def test_a_conversation_keeps_its_beginning_in_use() -> None:
    store = ResponseStore(3, 1 << 20)
    store.put(record("a"))
    store.put(record("b", "a"))
    store.put(record("other"))
    store.conversation("b", ME)
    store.put(record("new"))
    assert names(store, "a", "b", "other", "new") == ["a", "b", "new"]


def test_what_has_not_ended_cannot_be_gone_on_from() -> None:
    store = ResponseStore(3, 1 << 20)
    store.put(running("a"))
    with pytest.raises(InvalidRequest, match="has not ended"):
        store.conversation("a", ME)


def test_one_owner_finds_nothing_of_another() -> None:
    store = ResponseStore(10, 1 << 20)
    store.put(record("a", owner=OTHER))
    with pytest.raises(ResponseNotFound):
        store.get("a", ME)
    with pytest.raises(PreviousResponseNotFound):
        store.conversation("a", ME)
    assert store.items({"in_a"}, ME) == {}
    assert store.items({"in_a"}, OTHER)["in_a"]["id"] == "in_a"


def test_an_id_of_one_owner_takes_no_item_away_from_another() -> None:
    store = ResponseStore(10, 1 << 20)
    store.put(record("a"))
    taken = record("b", owner=OTHER)
    taken.input, taken.item_ids = b'[{"id":"in_a","text":"theirs"}]', ("in_a", "out_b")
    store.put(taken)
    assert store.items({"in_a"}, ME)["in_a"]["text"] == ""
    assert store.items({"in_a"}, OTHER)["in_a"]["text"] == "theirs"
    store.drop(taken)
    assert set(store.items({"in_a"}, ME)) == {"in_a"}


def test_what_runs_and_grows_puts_out_what_has_ended_and_then_fails() -> None:
    store = ResponseStore(100, 20_000)
    store.put(record("a", size=3000))
    store.put(record("b", size=3000))
    told = Running()
    growing = Record("r", ME, None, b"[]", background=cast(Background, told))
    store.put(growing)
    for size in (5000, 8000, 12_000):
        told.num_bytes = size
        store.grow(growing)
        assert store.num_bytes <= 20_000
    assert names(store, "a", "b", "r") == ["b", "r"]
    told.num_bytes = 25_000
    with pytest.raises(Unavailable, match=r"take 26\d\d\d bytes; at most 20000 are kept"):
        store.grow(growing)
    assert names(store, "b", "r") == ["r"]
    store.drop(growing)
    store.grow(growing)
    assert store.num_bytes == 0

"""Who computes: instances that share a model one at a time, with PyTorch always in one thread."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from encoder_folders import make_encoder
from encoder_site import open_encoder, request, run
from patience import patience

from trivet.backends.encoder.torch_body import TorchBody
from trivet.backends.encoder.turns import InOneThread, OneAtATime, Turns


@pytest.mark.parametrize("make", [InOneThread, OneAtATime])
def test_works_do_not_overlap(make: Callable[[], Turns]) -> None:
    turns, has_begun, may_end = make(), threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        has_begun.set()
        assert may_end.wait(patience())
        order.append("first")

    with ThreadPoolExecutor(2) as callers:
        slow = callers.submit(turns.take, first)
        assert has_begun.wait(patience())
        quick = callers.submit(turns.take, lambda: order.append("second"))
        assert not order
        may_end.set()
        slow.result(patience())
        quick.result(patience())
    assert order == ["first", "second"]


def test_what_fails_fails_for_whoever_asked_and_the_next_one_has_its_turn() -> None:
    turns = InOneThread()
    with pytest.raises(ZeroDivisionError):
        turns.take(lambda: 1 / 0)
    assert turns.take(lambda: 1) == 1


def test_the_thread_ends_with_the_last_who_has_it() -> None:
    turns = InOneThread()
    thread = turns.take(threading.current_thread)
    assert thread is not threading.current_thread()
    del turns
    thread.join(patience())
    assert not thread.is_alive()


def test_pytorch_computes_for_all_instances_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, computed = [], []
    open_it, compute = TorchBody.__init__, TorchBody.compute

    def opening(*given: object) -> None:
        opened.append(threading.get_ident())
        open_it(*given)  # type: ignore[arg-type]  # as they come

    def computing(*given: object) -> object:
        computed.append(threading.get_ident())
        return compute(*given)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(TorchBody, "__init__", opening)
    monkeypatch.setattr(TorchBody, "compute", computing)
    folder = make_encoder(tmp_path / "m/1")
    instances = [open_encoder(folder), open_encoder(folder)]
    with ThreadPoolExecutor(2) as threads:
        for asked in [threads.submit(run, each, request("ada")) for each in instances]:
            asked.result(patience())
    assert computed == opened * 2
    assert threading.get_ident() not in computed

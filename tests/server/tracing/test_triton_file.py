"""Trace files that the disk does not take: what is lost is said, what comes later can be read."""

import json
import logging
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import patience

from trivet.server.tracing.record import Span, Stamp, Trace
from trivet.server.tracing.triton_file import TritonFileTarget


def trace(name: str, num_stamps: int = 1) -> Trace:
    stamps = [Stamp("QUEUE_START", number) for number in range(num_stamps)]
    return Trace(1, [Span("infer", 1, 0, 0, model_name=name, stamps=stamps)], log_frequency=0)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """A write beyond it is cut short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wait_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    wait_until(lambda: text in caplog.text)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names_in(path: Path) -> list[str]:
    entries = json.loads(path.read_text())
    return [entry["model_name"] for entry in entries if "model_name" in entry]


@pytest.mark.parametrize("before", [[], ["first"]])
def test_what_follows_a_trace_that_was_cut_off_can_be_read(
    before: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nothing stood in the file before."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "trace.json"
    target = TritonFileTarget(str(path))
    with files_of_at_most(4096):
        for name in before:
            target.take(trace(name))
        target.take(trace("long", 1000))
        target.take(trace("long", 1000))
        wait_for("traces are lost, they cannot be written to", caplog)
        # The second long one begins where the first did.
        wait_until(lambda: path.stat().st_size == 4096)
        target.take(trace("short"))
        wait_for("again", caplog)
    target.take(trace("last"))
    target.close(10)
    assert names_in(path) == [*before, "short", "last"]
    assert caplog.text.count("traces are lost") == 1

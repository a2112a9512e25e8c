"""A started program gets what it is given, and one that does not start leaves nothing behind."""

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from trivet.backends.process import launch as module
from trivet.backends.process.launch import launch


def says(text: str) -> Any:
    """In place of `program`: one that sends its settings and argument, and prints a text."""
    return lambda _: (
        "import socket, sys; end = socket.socket(fileno=int(sys.argv[1]));"
        f"print({text!r}); end.sendall(sys.stdin.buffer.read() + sys.argv[2].encode())"
    )


def num_open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_settings_and_arguments_arrive_and_prints_are_log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = num_open_fds()
    monkeypatch.setattr(module, "program", says("a word"))
    with caplog.at_level("INFO"):
        launched = launch(
            "any", ["argument"], b"settings, ", ("rank 1", "small"), socket_bytes=4096
        )
        received = b"".join(iter(lambda: launched.socket.recv(1 << 12), b""))
        launched.kill()
    assert received == b"settings, argument"
    (line,) = [each.__dict__ for each in caplog.records if each.getMessage() == "a word"]
    assert (line["printed_by"], line["model"], line["pid"]) == (
        "rank 1",
        "small",
        launched.process.pid,
    )
    assert num_open_fds() == before


def test_one_that_reads_no_settings_has_only_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "program", lambda _: "import os; os._exit(3)")
    launched = launch("any", [], b" " * (1 << 20), ("m", "m"))
    assert launched.socket.recv(1) == b""
    assert launched.process.wait() == 3
    launched.kill()


@pytest.mark.parametrize("fails", ["Popen", "start"])
def test_what_does_not_start_leaves_no_descriptor_and_no_process(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("swordfish")

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    owner = subprocess if fails == "Popen" else threading.Thread
    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(owner, fails, refuse)
    before = num_open_fds()
    with pytest.raises(OSError, match="swordfish"):
        launch("trivet.backends.llm.ranks.child", [], b"", ("m", "m"))
    assert num_open_fds() == before
    assert all(process.returncode is not None for process in started)

"""Programs that do something once: their output, their end, and the end of those that take long."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from patience import fires_after, patience

from trivet.backends.process.chore import Chore, Ended

SLEEPS = "import subprocess, sys; print('here', flush=True)\n"
SLEEPS += "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


def run(
    code: str,
    folder: Path,
    *,
    limit_s: float | None = None,
    stop: threading.Event | None = None,
    **variables: str,
) -> Ended:
    chore = Chore((sys.executable, "-c", code), "doing", "m", folder, variables)
    return chore.run(limit_s or patience(), stop or threading.Event())


def num_children() -> int:
    return len(psutil.Process().children(recursive=True))


def test_its_output_is_logged_and_its_last_lines_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import os, sys\nfor i in range(50): print(i)\nprint(os.getcwd(), os.environ['A'])\n"
    with caplog.at_level(logging.INFO):
        ended = run(f"{code}print()\nsys.exit('no')", tmp_path, A="b", PYTHONUNBUFFERED="1")

    assert (ended.code, ended.is_late, ended.is_stopped) == (1, False, False)
    assert ended.lines[-3:] == ("49", f"{tmp_path.resolve()} b", "no")
    assert len(ended.lines) < 25
    assert "0" in [record.getMessage() for record in caplog.records]
    assert {vars(record).get("model") for record in caplog.records} == {"m"}


def test_one_that_takes_too_long_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    before = num_children()

    ended = run(SLEEPS, tmp_path, limit_s=fires_after(1.0))

    assert ended.is_late
    assert ended.code != 0
    assert num_children() == before


def test_so_is_one_that_prints_without_end(tmp_path: Path) -> None:
    ended = run("while True: print('again' * 1000)", tmp_path, limit_s=fires_after(0.5))
    assert ended.is_late


def test_so_is_one_that_nobody_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, stop = num_children(), threading.Event()

    class Stops(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stop.set()

    handler, log = Stops(), logging.getLogger("trivet.backends.process.output")
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO):
            ended = run(SLEEPS, tmp_path, stop=stop)
    finally:
        log.removeHandler(handler)

    assert (ended.is_stopped, ended.is_late) == (True, False)
    assert num_children() == before


def test_one_that_cannot_be_started_fails(tmp_path: Path) -> None:
    chore = Chore((str(tmp_path / "no"),), "doing", "m", tmp_path, {})

    assert chore.run(patience(), threading.Event()).code != 0


def test_it_ends_with_its_server(tmp_path: Path) -> None:
    """Also where that is killed."""
    code = (
        "import sys, threading; from pathlib import Path\n"
        "from trivet.backends.process.chore import Chore\n"
        "program = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        "import logging; logging.basicConfig(level=20, stream=sys.stdout, format='%(message)s')\n"
        "chore = Chore((sys.executable, '-c', program), 'doing', 'm', Path('.'), {})\n"
        "chore.run(600, threading.Event())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as server:
        assert server.stdout is not None
        chore = psutil.Process(int(server.stdout.readline()))
        server.kill()
        psutil.wait_procs([chore], timeout=patience())

    assert not chore.is_running() or chore.status() == psutil.STATUS_ZOMBIE

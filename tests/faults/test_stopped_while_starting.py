"""A server that is told to stop before it has started ends at once, whoever its parent is."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from patience import patience
from serving import RunningServer

SLOW = """
import time
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        print("it is being loaded", flush=True)
        time.sleep(100_000)
    def execute(self, requests):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once(
    serve: Callable[..., RunningServer], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow/1").mkdir(parents=True)
    (tmp_path / "slow/1/model.py").write_text(SLOW)
    server = serve(tmp_path, "--drain-delay-secs=100000", "--exit-timeout-secs=100000", wait=False)
    server.wait_until(lambda: any("it is being loaded" in line for line in server.output), "loaded")
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.send_signal(number)
    assert server.process.wait(patience()) == 0
    assert any("has not started yet, and ends" in line for line in server.output)
    _, alive = psutil.wait_procs(children, patience())
    assert alive == []

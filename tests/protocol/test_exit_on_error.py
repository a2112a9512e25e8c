"""A server that does not start without one of its models says so at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from patience import patience
from serving import RunningServer

SLEEPS = """
import threading


class TritonPythonModel:
    def initialize(self, args):
        threading.Event().wait()
"""
CONFIG = """
backend: "python"
input [{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }]
"""


@pytest.mark.slow
def test_it_waits_for_no_other_model(serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    (tmp_path / "models/broken/1").mkdir(parents=True)
    (tmp_path / "models/broken/1/model.onnx").write_bytes(b"no model")
    folder = tmp_path / "models/endless"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1/model.py").write_text(SLEEPS)
    server = serve(tmp_path / "models", wait=False)

    assert server.process.wait(patience()) == 1
    assert any("model(s) broken failed to load" in line for line in server.output)

"""What engines and their ranks print, past all logging, is in the server's log with their ids."""

import logging
import os
from pathlib import Path

import pytest
from paged_models import save_model

from trivet.backends.llm.process.starting import start_engine
from trivet.backends.llm.settings import EngineSettings


@pytest.mark.slow  # two interpreters that import torch
def test_what_a_rank_prints_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'raw words\\n')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    settings = EngineSettings(
        str(save_model(tmp_path / "model")), device="cpu", dtype="float32", num_threads=1,
        max_num_seqs=2, kv_cache_bytes=1 << 22, max_model_len=64, tensor_parallel_size=2,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        engine = start_engine("small", settings)
        engine.kill()
    printed = [each.__dict__ for each in caplog.records if each.getMessage() == "raw words"]
    # The engine itself is a fork of what has imported all that it needs, which printed of no model.
    assert {each["printed_by"]: each.get("model") for each in printed if "model" in each} == {
        "small rank 1": "small"
    }
    assert len({each["pid"] for each in printed}) == 2

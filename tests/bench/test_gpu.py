"""What the bench of GPUs does where there is none, and what it reads off the metrics page."""

import pytest

from bench.gpu import ensemble, vision


@pytest.mark.skipif(not ensemble.why_skipped(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_has_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert ensemble.run() == []
    assert vision.run() == []
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "gpu ensemble: skipped", "gpu vision: skipped",
    ]  # fmt: skip

"""The Triton kernels run under Triton's interpreter, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
KERNELS = Path(__file__).parent / "kernels"
SOME = "over_splits"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", sorted(path.name for path in KERNELS.glob("test_*.py")))
def test_kernels_give_in_the_interpreter_what_they_promise(module: str) -> None:
    interpret(str(KERNELS / module))


def test_some_kernels_give_in_the_interpreter_what_they_promise() -> None:
    interpret(str(KERNELS), "-k", SOME)


def interpret(*selection: str) -> None:
    """Runs tests of the kernels' folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *selection],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_compile_for_an_h100_without_spilling() -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_for_sm90.py")],
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    kernels = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(kernels) >= 60
    assert [kernel for kernel in kernels if kernel["spilled_bytes"]] == []
    # Keys and values, or codes and rows, come to shared memory while the tile before is computed.
    ahead = {"decode_split", "attend_chunks", "multiply"}
    for kernel in kernels:
        assert kernel["has_async_copies"] == (kernel["kernel"] in ahead)
        if kernel["kernel"] in {"attend_chunks", "multiply"}:
            assert kernel["has_wgmma"] == (kernel["model"] != "float32")

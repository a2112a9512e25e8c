"""What it takes to have a model of each framework: time to its first answer, and memory.

Each side is a process of its own, so that nothing is loaded already: the library alone, which opens
the file and computes once; and the backend, which does the same, in a process of the model's own
where it has one. Memory is what the model adds: that whole process, or by how much the server's
grows. The models are as small as can be, but for the encoder: what is measured is the framework.
"""

import json
import os
import subprocess
import sys
import tempfile

from bench.figures import Figures, Measure, Row, alternate
from bench.processes import HERE

FRAMEWORKS = (
    "onnxruntime",
    "pytorch",
    "tflite",
    "openvino",
    "xgboost",
    "lightgbm",
    "catboost",
    "sklearn",
    "encoder",
    "tensorflow",
    "keras",
)


def bench_frameworks(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001 - each runs once
    """Each framework's rows, beside its library."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for word in FRAMEWORKS:
            _run("make", word, folder)
            sides = {side: _measure(side, word, folder) for side in ("bare", "ours")}
            found = alternate(sides, rounds)
            of_word = _rows(word, found["ours"], found["bare"])
            for row in of_word:
                print(
                    f"  {row.cell:<34} {row.ours:>8,.0f} {row.bare:>8,.0f} {row.unit}", flush=True
                )
            rows += of_word
    return rows


def _measure(side: str, word: str, folder: str) -> Measure:
    def measure() -> Figures:
        figures: Figures = json.loads(_run(side, word, folder).splitlines()[-1])
        return figures

    return measure


def _run(side: str, word: str, folder: str) -> str:
    command = [sys.executable, "-m", "bench.framework_side", side, word, folder]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TF_CPP_MIN_LOG_LEVEL": "2"}
    ran = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE
    )
    return ran.stdout


def _rows(word: str, ours: Figures, bare: Figures) -> list[Row]:
    return [
        Row(f"{word}, to the first answer", "ms", ours["milliseconds"], bare["milliseconds"], None),
        Row(f"{word}, processor time", "ms", ours["processor"], bare["processor"], None),
        Row(f"{word}, memory", "MB", ours["megabytes"], bare["megabytes"], None),
    ]

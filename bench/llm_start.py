"""From a server's start to the first token of SmolLM2, next to an interpreter that imports torch:
less than that no server can take which computes by it."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.against.checkout import Side
from bench.against.start import start
from bench.figures import Figures, Row, alternate
from bench.llm import MAX_MODEL_LEN, MODEL
from bench.llm_servers import our_repository
from bench.processes import HERE


def bench_llm_start(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001  # a start is one
    """Seconds; `--against` compares them with another commit's."""
    with tempfile.TemporaryDirectory() as folder:
        repository = our_repository(MODEL, Path(folder), MAX_MODEL_LEN)
        ours = Side("ours", HERE)

        def first_token() -> Figures:
            return {"seconds": 1 / start(ours, repository).rate_per_s}

        found = alternate({"ours": first_token, "bare": _import}, rounds)
    cell = "LLM, start to the first token, next to importing torch"
    mine, bare = (found[side]["seconds"] for side in ("ours", "bare"))
    return [Row(cell, "s", mine, bare, None, is_difference=True)]


def _import() -> Figures:
    started_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return {"seconds": time.monotonic() - started_s}

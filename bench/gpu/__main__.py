"""`python -m bench.gpu`: all that is held against a GPU, in one run of less than 8 minutes.

What is measured is checked first. Without a GPU it says so and ends well.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.__main__ import environment, print_table, table_of_rows
from bench.figures import Row
from bench.gpu.subject import read

BUDGET_S = 470.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What one process measures."""

    name: str
    module: str
    function: str = "run"
    needs_s: float = 60.0
    """Less time is not worth beginning it."""


SUBJECTS = (
    Subject("llm", "bench.gpu.llm", needs_s=120),
    Subject("ensemble", "bench.gpu.ensemble", needs_s=30),
    Subject("vision", "bench.gpu.vision", needs_s=45),
    Subject("llm-8bit", "bench.gpu.llm", "run_8bit", needs_s=90),
    Subject("llm-packed", "bench.gpu.packed", needs_s=60),
    Subject("peers", "bench.gpu.peers", needs_s=75),
)


def main() -> None:
    """Subject by subject; the table comes last."""
    options = _options()
    reason = why_skipped()
    if reason:
        print(f"bench.gpu: skipped, {reason}")
        return
    rows, failed = measure(options.only, time.monotonic() + options.budget)
    facts = environment() | device_facts()
    print_table(facts, table_of_rows(rows))
    for name, text in failed.items():
        print(f"{name}: {text}")
    if options.json:
        cells = [{**asdict(row), "result": row.result, "verdict": row.verdict} for row in rows]
        options.json.write_text(
            json.dumps({"environment": facts, "cells": cells, "failed": failed}, indent=1)
        )
    sys.exit(bool(failed) or any(row.verdict == "MISS" for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--only", choices=names, help="one subject instead of all")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the cells to FILE")
    return parser.parse_args()


def why_skipped() -> str:
    """Why there is nothing to measure; empty where PyTorch has a GPU."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    if torch.cuda.is_available():
        return ""
    return f"PyTorch {torch.__version__} sees no GPU (nvidia-smi shows driver and GPUs)"


def measure(only: str | None, deadline_s: float) -> tuple[list[Row], dict[str, str]]:
    """The rows of all subjects that ended well, and what became of the others."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for subject in SUBJECTS:
            if only not in (None, subject.name):
                continue
            left_s = deadline_s - time.monotonic()
            if left_s < subject.needs_s and only is None:
                failed[subject.name] = f"not begun, {left_s:.0f} s are left (--budget)"
                continue
            found, text = run_subject(subject, Path(folder) / subject.name, left_s)
            rows += found
            if text:
                failed[subject.name] = text
    return rows, failed


def run_subject(subject: Subject, target: Path, left_s: float) -> tuple[list[Row], str]:
    """Its rows, or why there are none. What it says meanwhile is seen as it says it."""
    print(f"{subject.name}: begun, {left_s:.0f} s are left", flush=True)
    command = [sys.executable, "-m", "bench.gpu.subject", subject.module, subject.function]
    try:
        done = subprocess.run([*command, str(target)], check=False, timeout=left_s)
    except subprocess.TimeoutExpired:
        return [], f"not done within {left_s:.0f} s (--budget)"
    if done.returncode:
        return [], f"ended with code {done.returncode}; what it said stands above"
    return read(target), ""


def device_facts() -> dict[str, str]:
    """What the figures depend on."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "device": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
        f"{properties.multi_processor_count} multiprocessors",
        "cuda": f"{torch.version.cuda}, torch {torch.__version__}",
    }


if __name__ == "__main__":
    main()

"""`python -m bench`: every ratio that we hold ourselves to, in one run on this machine.

But for the part `peers` nothing is pinned to cores: with few of them a pinned client takes the
server's, and the medians of alternating rounds proved steadier.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.against.checkout import CannotCompare
from bench.against.comparison import parse_bar
from bench.against.parts import COMPARED, as_json, compare, table_of
from bench.embedding import bench_embedding
from bench.encoder import bench_encoder
from bench.ensemble import bench_ensemble
from bench.figures import Row
from bench.frameworks import bench_frameworks
from bench.idle import bench_idle
from bench.infer import bench_infer
from bench.large import bench_large
from bench.llm import bench_llm, bench_llm_alone, bench_llm_batching
from bench.llm_families import bench_llm_families
from bench.llm_lora import bench_llm_lora
from bench.llm_packed import bench_llm_packed
from bench.llm_sharing import bench_llm_sharing
from bench.llm_speculation import bench_llm_speculation
from bench.llm_start import bench_llm_start
from bench.llm_step import bench_llm_step
from bench.minilm import bench_minilm
from bench.nested import bench_nested
from bench.overload import bench_overload
from bench.peers.cells import bench_peers
from bench.python_models import bench_python_models
from bench.sequences import bench_sequences
from bench.shadows import bench_shadows
from bench.splits import bench_splits
from bench.sse import bench_sse
from bench.through_ray import bench_through_ray
from bench.wake import bench_wake

PARTS = {
    "infer": bench_infer,
    "ensemble": bench_ensemble,
    "embedding": bench_embedding,
    "encoder": bench_encoder,
    "nested": bench_nested,
    "minilm": bench_minilm,
    "sequences": bench_sequences,
    "large": bench_large,
    "llm": bench_llm,
    "llm-alone": bench_llm_alone,
    "llm-batching": bench_llm_batching,
    "llm-step": bench_llm_step,
    "llm-families": bench_llm_families,
    "llm-lora": bench_llm_lora,
    "llm-packed": bench_llm_packed,
    "llm-sharing": bench_llm_sharing,
    "llm-speculation": bench_llm_speculation,
    "llm-start": bench_llm_start,
    "sse": bench_sse,
    "overload": bench_overload,
    "splits": bench_splits,
    "shadows": bench_shadows,
    "frameworks": bench_frameworks,
    "python-models": bench_python_models,
    "idle": bench_idle,
    "wake": bench_wake,
    "ray": bench_through_ray,
    "peers": bench_peers,
}
PACKAGES = ("trivet", "grpcio", "aiohttp", "uvloop", "protobuf", "numpy", "onnxruntime")


def main() -> None:
    """Runs the parts asked for and prints one table."""
    options = _options(sys.argv[1:])
    facts = environment()
    run = _run_against if options.against else _run_parts
    table, cells = run(options)
    print_table(facts, table)
    if options.json:
        options.json.write_text(json.dumps({"environment": facts, "cells": cells}, indent=1))
    sys.exit(any(cell["verdict"] == "MISS" for cell in cells))


def _run_parts(options: argparse.Namespace) -> tuple[Table, list[dict[str, object]]]:
    rows: list[Row] = []
    for name in options.only or PARTS:
        rows += PARTS[name](options.seconds or 4, options.rounds or 3)
    cells = [{**asdict(row), "result": row.result, "verdict": row.verdict} for row in rows]
    return table_of_rows(rows), cells


def _run_against(options: argparse.Namespace) -> tuple[Table, list[dict[str, object]]]:
    names, bars = options.only or COMPARED, dict(options.bar)
    seconds, rounds = options.seconds or 1, options.rounds or 12
    try:
        found = compare(options.against, names, seconds, rounds, bars)
    except CannotCompare as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        sys.exit(2)
    return table_of(found), [as_json(each) for each in found]


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=parse_parts, metavar="PART,...", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, help="of each measurement (4; --against: 1)")
    parser.add_argument("--rounds", type=int, help="medians are taken of (3; --against: 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the cells to FILE")
    parser.add_argument("--against", metavar="COMMIT", help="CPU time a request next to COMMIT's")
    parser.add_argument(
        "--bar",
        type=_bar,
        action="append",
        default=[],
        metavar="CELL=RATIO",
        help="with --against: least ratio of cells like infer/*/1 (0.97)",
    )
    return parser.parse_args(arguments)


def parse_parts(text: str) -> list[str]:
    """Names of parts, separated by commas, in the order of the table."""
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            known = ", ".join(PARTS)
            raise argparse.ArgumentTypeError(f"no part {name!r}; there are {known}")
    return [name for name in PARTS if name in names]


def _bar(text: str) -> tuple[str, float]:
    try:
        return parse_bar(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def environment() -> dict[str, str]:
    """What the figures depend on."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": f"{os.cpu_count()}, {_processor()}",
        "load before": f"{os.getloadavg()[0]:.2f} (a quiet machine is below 0.5)",
        "python": f"{platform.python_version()}, Linux {platform.release()}",
        "versions": ", ".join(versions),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_table(facts: dict[str, str], table: Table) -> None:
    """Facts, then the cells."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    console.print(table)


def table_of_rows(rows: list[Row]) -> Table:
    """Each cell with what it was measured next to."""
    table = Table("cell", "unit")
    for title in ("ours", "bare", "ratio", "bar"):
        table.add_column(title, justify="right")
    table.add_column("")
    table.add_column("note: ours / bare")
    for row in rows:
        table.add_row(*cells(row))
    return table


def cells(row: Row) -> list[str]:
    """A row as text."""
    digits = 2 if row.is_difference else 0
    result = f"+{row.result:.2f}" if row.is_difference else f"{row.result:.2f}"
    bar = ""
    if row.bar is not None:
        bar = f"<= +{row.bar}" if row.is_difference else f">= {row.bar}"
    ours, bare = (f"{value:,.{digits}f}" for value in (row.ours, row.bare))
    return [row.cell, row.unit, ours, bare, result, bar, row.verdict, row.note]


if __name__ == "__main__":
    main()

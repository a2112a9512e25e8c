"""Language models: over HTTP next to vLLM and llama.cpp, alone next to OpenVINO, transformers."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Figures, Measure, Row, alternate
from bench.llm_models import gguf_in, hub_folder
from bench.llm_servers import Running, our_repository, ours, peers, running
from bench.processes import run_module, run_python

MODEL = Path(__file__).resolve().parent.parent / "model_repository/smollm2/1/model.gguf"
STREAMS = (1, 4, 16, 32)
PROMPTS = ((32, 0), (512, 0), (32, 512))
"""Tokens of its own, and tokens that all prompts begin with."""
NEW_TOKENS = 64
MAX_MODEL_LEN = 1024
OURS, TORCH = "trivet", "trivet, torch alone"
TORCH_BARS = {1: 1.0, 4: 1.0, 16: 0.8, 32: 0.8}


def bench_llm(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001  # a run is what it is
    """Output tokens per second, times to first token and between tokens."""
    with _servers() as servers:
        rows = []
        for size, shared in PROMPTS:
            for streams in STREAMS:
                cell = f"{streams} x {size}" + (f" behind {shared} shared" if shared else "")
                sides: dict[str, Measure] = {
                    name: _over_http(server, streams, size, shared)
                    for name, server in servers.items()
                }
                found = alternate(sides, rounds)
                _print_cell(cell, found)
                rows += _rows(cell, streams, found)
    return rows


def bench_llm_alone(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001
    """Without a server: ours next to transformers' static batches and to OpenVINO GenAI, if
    TRIVET_BENCH_OPENVINO names the Python of an environment that has it."""
    _require_model()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        hub = hub_folder(MODEL, Path(folder) / "hub")
        gguf = gguf_in("F16", MODEL, Path(folder) / "f16.gguf")
        for size in (32, 512):
            for streams in STREAMS:
                sides = {
                    OURS: _alone("engine", MODEL, streams, size),
                    "transformers": _alone("transformers", hub, streams, size),
                }
                if python := os.environ.get("TRIVET_BENCH_OPENVINO"):
                    sides["openvino"] = _openvino(python, gguf, streams, size)
                found = alternate(sides, rounds)
                cell = f"engine alone, {streams} x {size}"
                _print_cell(cell, found)
                rows += _rows(cell, streams, found)
    return rows


def bench_llm_batching(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001
    """One engine, 64 requests of which one in eight is long: continuous against static batches."""
    _require_model()
    sides = {side: _alone(side, MODEL, 64, 32) for side in ("continuous", "static")}
    found = alternate(sides, rounds)
    ours_, static = (found[side]["tokens_per_s"] for side in sides)
    return [Row("continuous against static batches", "tokens/s", ours_, static, 3.0)]


@contextmanager
def _servers() -> Iterator[dict[str, Running]]:
    _require_model()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        repository = our_repository(MODEL, place / "repository", MAX_MODEL_LEN)
        started = [ours(repository, native=True), ours(repository, native=False)]
        hub, gguf = hub_folder(MODEL, place / "hub"), gguf_in("BF16", MODEL, place / "bf16.gguf")
        started += peers(hub, gguf, MAX_MODEL_LEN)
        yield {server.name: stack.enter_context(running(server)) for server in started}


def _require_model() -> None:
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is missing; make it with: python model_repository/build.py")


def _over_http(server: Running, streams: int, size: int, shared: int) -> Measure:
    def measure() -> Figures:
        # Each round has prompts of its own: a prompt met before would be in a cache.
        seed = time.monotonic_ns() % 1_000_000
        numbers = [streams, size, shared, NEW_TOKENS, 1 if streams > 4 else 3, seed]
        with server.awake() as url:
            return run_module("bench.llm_http", url, "smollm2", *map(str, numbers))

    return measure


def _alone(side: str, model: Path, streams: int, size: int) -> Measure:
    numbers = [str(model), str(streams), str(size), str(NEW_TOKENS)]
    return lambda: run_module("bench.llm_alone", side, *numbers)


def _openvino(python: str, gguf: Path, streams: int, size: int) -> Measure:
    script = Path(__file__).with_name("llm_openvino.py")
    numbers = [str(streams), str(size), str(NEW_TOKENS)]
    return lambda: run_python(python, str(script), str(gguf), *numbers)


def _print_cell(cell: str, found: dict[str, Figures]) -> None:
    print(f"{cell} tokens")
    for side, figures in found.items():
        print(
            f"  {side:<20} {figures['tokens_per_s']:>8,.1f} tokens/s"
            f"  first {figures['ttft_p50_ms']:,.0f} / {figures['ttft_p99_ms']:,.0f} ms"
            f"  between {figures['itl_p50_ms']:,.1f} / {figures['itl_p99_ms']:,.1f} ms",
            flush=True,
        )


def _rows(cell: str, streams: int, found: dict[str, Figures]) -> list[Row]:
    rows = []
    for name, theirs in found.items():
        if name not in (OURS, TORCH):
            rows.append(_row(f"LLM {cell}, next to {name}", found[OURS], theirs, 1.0))
    if "vllm" in found:
        bar = TORCH_BARS[streams]
        rows.append(_row(f"LLM {cell}, torch alone next to vllm", found[TORCH], found["vllm"], bar))
    return rows


def _row(cell: str, ours_: Figures, theirs: Figures, bar: float) -> Row:
    note = ", ".join(
        f"{name} {ours_[f'{key}_p50_ms']:.1f} / {theirs[f'{key}_p50_ms']:.1f} ms"
        for key, name in (("ttft", "first"), ("itl", "between"))
    )
    return Row(cell, "tokens/s", ours_["tokens_per_s"], theirs["tokens_per_s"], bar, note=note)

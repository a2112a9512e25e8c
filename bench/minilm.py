"""A real sentence encoder through the server next to ONNX Runtime alone on the same cores."""

import tempfile
from pathlib import Path

import numpy as np

from bench.figures import Figures, Measure, Row, alternate, better, describe
from bench.messages import write_request
from bench.processes import run_inprocess, run_load, trivet

MODELS = Path(__file__).resolve().parent.parent / "model_repository"
NUM_TOKENS = 32
BATCHES = (1, 4, 8, 16)
CONCURRENCIES = (16, 64)
RATE_BAR = 0.95
LATENCY_BAR_MS = 0.6


def bench_minilm(seconds: float, rounds: int) -> list[Row]:
    """Sentences per second at 16 and 64 sentences in flight, and the latency of a lone one."""
    model = MODELS / "minilm/1/model.onnx"
    if not model.exists():
        raise SystemExit(f"{model} is missing; make it with: python model_repository/build.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        (folder / "models/minilm").symlink_to(MODELS / "minilm")
        with trivet(folder / "models") as ours:
            ids = np.random.default_rng(0).integers(1000, 20000, (1, NUM_TOKENS), dtype=np.int64)
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            request = write_request(folder, "minilm", inputs, b"sentence_embedding")
            sides: dict[str, Measure] = {}
            for batch in BATCHES:
                sides[f"alone {batch}"] = _alone(model, batch, seconds)
            for protocol in ("grpc", "http"):
                for concurrency in (1, *CONCURRENCIES):
                    load = request.load(protocol, ours, concurrency, seconds, 1.0)
                    sides[f"{protocol} {concurrency}"] = lambda load=load: run_load(load)  # type: ignore[misc]  # binds the loop's value
            found = alternate(sides, rounds)
    return _rows(found)


def _alone(model: Path, batch: int, seconds: float) -> Measure:
    return lambda: run_inprocess(model, batch, NUM_TOKENS, seconds)


def _rows(found: dict[str, Figures]) -> list[Row]:
    for side, figures in found.items():
        if "client_busy" in figures:
            print(describe(side, figures))
        else:
            print(f"  {side:<14} {figures['rate_per_s']:>9,.1f}/s  run {figures['p50_us']:,.0f} us")
    bare = better(*(found[f"alone {batch}"] for batch in BATCHES))
    best = next(batch for batch in BATCHES if found[f"alone {batch}"] is bare)
    rows = []
    for protocol in ("grpc", "http"):
        for concurrency in CONCURRENCIES:
            cell = f"MiniLM 32 tokens, {protocol}, c={concurrency}"
            ours = found[f"{protocol} {concurrency}"]["rate_per_s"]
            note = f"alone: batch {best}"
            row = Row(cell, "sentences/s", ours, bare["rate_per_s"], RATE_BAR, note=note)
            rows.append(row)
        cell = f"MiniLM 32 tokens, {protocol}, c=1, p50"
        latency_ms = found[f"{protocol} 1"]["p50_us"] / 1e3
        alone_ms = found["alone 1"]["p50_us"] / 1e3
        rows.append(Row(cell, "ms", latency_ms, alone_ms, LATENCY_BAR_MS, is_difference=True))
    return rows

"""Our LLM engine next to transformers' generate: same weights, same type, same cores."""

from pathlib import Path

from bench.figures import Figures, Measure, Row, alternate
from bench.processes import run_module

MODEL = Path(__file__).resolve().parent.parent / "model_repository/smollm2/1/model.gguf"
STREAMS = (1, 4, 16, 32)
PROMPT_TOKENS = (32, 512)
NEW_TOKENS = 64
SIDES = ("engine", "transformers")


def bench_llm(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001  # a run is what it is
    """Output tokens per second, times to first token and between tokens."""
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is missing; make it with: python model_repository/build.py")
    rows = []
    for size in PROMPT_TOKENS:
        for count in STREAMS:
            sides: dict[str, Measure] = {side: _measure(side, count, size) for side in SIDES}
            rows += _rows(f"{count} x {size} tokens", alternate(sides, min(rounds, 2)))
    return rows


def _measure(side: str, count: int, size: int) -> Measure:
    numbers = [str(MODEL), str(count), str(size), str(NEW_TOKENS)]
    return lambda: run_module("bench.llm_alone", side, *numbers)


def _rows(cell: str, found: dict[str, Figures]) -> list[Row]:
    ours, theirs = (found[side] for side in SIDES)
    print(cell)
    for side, figures in found.items():
        print(
            f"  {side:<14} {figures['tokens_per_s']:>8,.1f} tokens/s"
            f"  first {figures['ttft_p50_ms']:,.0f} / {figures['ttft_p99_ms']:,.0f} ms"
            f"  between {figures['itl_p50_ms']:,.1f} / {figures['itl_p99_ms']:,.1f} ms",
            flush=True,
        )
    note = f"between tokens p50 {ours['itl_p50_ms']:.1f} / {theirs['itl_p50_ms']:.1f} ms"
    rate, bare = ours["tokens_per_s"], theirs["tokens_per_s"]
    return [Row(f"SmolLM2-135M, {cell}", "tokens/s", rate, bare, None, note=note)]

"""Five times more requests than a model can compute, next to as many as it can."""

import tempfile
from pathlib import Path

import numpy as np
import psutil

from bench.figures import Figures, Row, alternate
from bench.infer import CONFIG
from bench.messages import write_request
from bench.processes import Listener, run_module, trivet

COMPUTE_MS = 10
PEAK_PER_S = 1000 / COMPUTE_MS
EXTRA = f"""
parameters {{ key: "execute_delay_ms" value {{ string_value: "{COMPUTE_MS}" }} }}
dynamic_batching {{ default_queue_policy {{ max_queue_size: 8 }} }}
"""
GOODPUT_BAR = 0.9
REFUSAL_BAR_MS = 10.0
MEMORY_BAR_MB = 16.0


def bench_overload(seconds: float, rounds: int) -> list[Row]:
    """Goodput at five times the load, and how fast the rest is refused."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = CONFIG.replace("dynamic_batching { }", EXTRA)
        (folder / "models/narrow/1").mkdir(parents=True)
        narrow = config.replace("max_batch_size: 64", "max_batch_size: 1")
        (folder / "models/narrow/config.pbtxt").write_text(narrow)
        values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
        request = write_request(folder, "narrow", {"INPUT0": values}, values.tobytes())
        with trivet(folder / "models") as ours:
            file = request.files["http"]
            _offer(ours, file, 5 * PEAK_PER_S, 1.0)  # warms up
            found = alternate(
                {
                    "peak": lambda: _offer(ours, file, PEAK_PER_S, seconds),
                    "overload": lambda: _offer(ours, file, 5 * PEAK_PER_S, seconds),
                },
                rounds,
            )
    return _rows(found["peak"], found["overload"])


def _offer(ours: Listener, file: Path, rate_per_s: float, seconds: float) -> Figures:
    before = psutil.Process(ours.pid).memory_info().rss
    arguments = (str(ours.ports["http"]), str(file), str(rate_per_s), str(seconds))
    figures = run_module("bench.open_loop", *arguments)
    figures["grown_mb"] = (psutil.Process(ours.pid).memory_info().rss - before) / 1e6
    line = (f"{key} {value:,.2f}" for key, value in figures.items())
    print(f"  offered {rate_per_s:,.0f}/s: {', '.join(line)}", flush=True)
    return figures


def _rows(peak: Figures, overload: Figures) -> list[Row]:
    cell = "5 x overload, HTTP"
    refused, grown = overload["refused_p50_ms"], overload["grown_mb"]
    p99 = f"p99 {overload['refused_p99_ms']:.1f} ms"
    return [
        Row(f"{cell}, goodput", "1/s", overload["good_per_s"], peak["good_per_s"], GOODPUT_BAR),
        Row(
            f"{cell}, refusal p50", "ms", refused, 0.0, REFUSAL_BAR_MS, is_difference=True, note=p99
        ),
        Row(f"{cell}, memory", "MB", grown, 0.0, MEMORY_BAR_MB, is_difference=True),
    ]

"""A model at half of its load, with a shadow that is to see each of its requests, next to one
without: the example's `text_direction`, whose version 2 is the shadow of version 1."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from bench.figures import Figures, Row, in_turn
from bench.messages import write_request
from bench.processes import HERE, Listener, run_module, trivet

MODEL = "text_direction"
BAR = 1.2
"""Of the 99th percentile with a shadow, next to that without."""
ALONE = "[split]\n1 = 100\n2 = 0\n"
SHADOW = "[shadow]\nversion = 2\npercent = 100\n"
PEAK_PER_S = 2000.0
"""More than the model computes."""


def bench_shadows(seconds: float, rounds: int) -> list[Row]:
    """Latencies of the version that answers, and what part of the copies was shed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        picture = np.ones((1, 3, 48, 192), np.float32)
        request = write_request(folder, MODEL, {"x": picture}, b"")
        file = request.files["http"]
        plain = stack.enter_context(_served(folder / "plain", ALONE))
        shadowed = stack.enter_context(_served(folder / "shadowed", ALONE + SHADOW))
        rate = _offer(plain, file, PEAK_PER_S, seconds)["good_per_s"] / 2
        before = _shadows(shadowed)
        seen = in_turn(
            {
                "plain": lambda: _offer(plain, file, rate, seconds),
                "shadowed": lambda: _offer(shadowed, file, rate, seconds),
            },
            rounds,
        )
        after = _shadows(shadowed)
    counts = {name: after[name] - before[name] for name in after}
    return [_row(seen, rate, counts, part) for part in ("p50", "p99")]


@contextmanager
def _served(repository: Path, traffic: str) -> Iterator[Listener]:
    shutil.copytree(HERE / "model_repository" / MODEL, repository / MODEL)
    (repository / MODEL / "traffic.toml").write_text(traffic)
    state = f"--state-dir={repository.parent / (repository.name + '-state')}"
    with trivet(repository, state) as listener:
        yield listener


def _offer(server: Listener, file: Path, rate_per_s: float, seconds: float) -> Figures:
    arguments = (str(server.ports["http"]), str(file), str(rate_per_s), str(seconds))
    figures = run_module("bench.open_loop", *arguments)
    line = (f"{key} {value:,.2f}" for key, value in figures.items() if key.startswith("good"))
    print(f"  offered {rate_per_s:,.0f}/s: {', '.join(line)}", flush=True)
    return figures


def _shadows(server: Listener) -> dict[str, int]:
    url = f"http://127.0.0.1:{server.ports['http']}/v2/models/{MODEL}/traffic"
    found: dict[str, int] = httpx.get(url).json()["shadows"].get("2", {})
    return {name: found.get(name, 0) for name in ("same", "different", "failed", "shed")}


def _row(seen: dict[str, list[Figures]], rate: float, counts: dict[str, int], part: str) -> Row:
    ours, bare = (
        median(each[f"good_{part}_ms"] for each in seen[side]) for side in ("shadowed", "plain")
    )
    shed = counts["shed"] / max(1, sum(counts.values()))
    note = f"at {rate:.0f}/s; {100 * shed:.1f} % of {sum(counts.values())} copies were shed"
    # The bar is how many times as long it may take: a rate has the slower one below.
    bar = 1 / BAR if part == "p99" else None
    return Row(f"{part} without a shadow / with one", "ms", bare, ours, bar, note=note)

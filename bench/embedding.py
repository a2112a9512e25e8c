"""Sentences to embeddings through the example ensemble, next to its three steps in one process.

`python -m bench.embedding BATCH SECONDS` prints the figures of the latter as JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.figures import Measure, Row, alternate, better, describe
from bench.messages import write_request
from bench.processes import run_load, run_module, trivet

MODELS = Path(__file__).resolve().parent.parent / "model_repository"
STEPS = ("minilm_tokenizer", "minilm_tokens", "mean_pooling")
SENTENCE = (
    "A trivet is a three-legged stand that hot dishes are served on, and so the table under them "
    "stays as it was before the guests came."
)
BATCHES = (1, 4, 8, 16)
CONCURRENCY = 64
BAR = 0.9
LEAST_SECONDS = 10


def bench_embedding(seconds: float, rounds: int) -> list[Row]:
    """Sentences per second, 64 requests of one sentence in flight."""
    # A batch takes half a second on a slow machine: a short window would count whole batches.
    seconds = max(seconds, LEAST_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for model in (*STEPS, "sentence_embedding"):
            (folder / "models" / model).symlink_to(MODELS / model)
        with trivet(folder / "models") as ours:
            text = np.array([[SENTENCE.encode()]], dtype=object)
            request = write_request(folder, "sentence_embedding", {"text": text}, b"embedding")
            sides: dict[str, Measure] = {
                f"alone {batch}": lambda batch=batch: run_module(  # type: ignore[misc]  # binds the loop's value
                    "bench.embedding", str(batch), str(seconds)
                )
                for batch in BATCHES
            }
            for protocol in ("grpc", "http"):
                load = request.load(protocol, ours, CONCURRENCY, seconds, 1.0)
                sides[protocol] = lambda load=load: run_load(load)  # type: ignore[misc]  # binds the loop's value
            found = alternate(sides, rounds)
    for side, figures in found.items():
        if "client_busy" in figures:
            print(describe(side, figures), flush=True)
    alone = {batch: found[f"alone {batch}"] for batch in BATCHES}
    bare = better(*alone.values())
    best = next(batch for batch in BATCHES if alone[batch] is bare)
    rows = []
    for protocol in ("grpc", "http"):
        served = found[protocol]
        cpu = f"CPU {served['server_cpu_us']:,.0f} / {bare['cpu_us']:,.0f} us"
        cell = f"embedding ensemble, {protocol}, c={CONCURRENCY}"
        rates = (served["rate_per_s"], bare["rate_per_s"])
        note = f"{cpu}, alone in batches of {best}"
        rows.append(Row(cell, "sentences/s", *rates, BAR, note=note))
    return rows


def run(batch: int, seconds: float) -> dict[str, float]:
    """The three functions, one after the other, in a closed loop."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODELS / "minilm_tokenizer/1/tokenizer.json"))
    tokenizer.enable_padding()
    encoder, pooling = (
        onnxruntime.InferenceSession(
            MODELS / name / "1/model.onnx", providers=["CPUExecutionProvider"]
        )
        for name in STEPS[1:]
    )

    def embed() -> None:
        encodings = tokenizer.encode_batch([SENTENCE] * batch)
        mask = np.array([each.attention_mask for each in encodings], np.int64)
        ids = np.array([each.ids for each in encodings], np.int64)
        (tokens,) = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        pooling.run(None, {"token_embeddings": tokens, "attention_mask": mask})

    for _ in range(5):
        embed()
    count, started_s, cpu_s = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started_s < seconds:
        embed()
        count += batch
    cpu_us = (time.process_time() - cpu_s) / count * 1e6
    return {"rate_per_s": count / (time.perf_counter() - started_s), "cpu_us": cpu_us}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]))))

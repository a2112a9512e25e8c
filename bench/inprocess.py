"""ONNX Runtime without a server, in a process of its own: `python -m bench.inprocess MODEL BATCH
TOKENS SECONDS` prints sentences per second and the median run as JSON."""

import json
import sys
import time

import numpy as np
import onnxruntime


def run(model: str, batch: int, num_tokens: int, seconds: float) -> dict[str, float]:
    """Runs batches in a closed loop."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, num_tokens), dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for _ in range(10):
        session.run(None, feed)
    latencies_s = []
    started_s = time.perf_counter()
    while (begun_s := time.perf_counter()) - started_s < seconds:
        session.run(None, feed)
        latencies_s.append(time.perf_counter() - begun_s)
    elapsed_s = time.perf_counter() - started_s
    p50_us = sorted(latencies_s)[len(latencies_s) // 2] * 1e6
    return {"rate_per_s": len(latencies_s) * batch / elapsed_s, "p50_us": p50_us}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))

"""The same requests through other engines, each in a process of its own, next to ours.

TRIVET_BENCH_TRANSFORMERS and TRIVET_BENCH_VLLM name the Python of an environment that has one of
them; without the first, ours is asked for `transformers`.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from bench.figures import Row
from bench.gpu.llama import LLAMA, SETTINGS, RandomLlama
from trivet.backends.llm.families.llama import LlamaShape

LOAD = (128, 512, 128)
"""Requests, tokens of each prompt and of each output."""
TIMEOUT_S = 150.0


def run() -> list[Row]:
    """Output tokens a second."""
    count, prompt, output = LOAD
    llama = RandomLlama(LLAMA, SETTINGS)
    llama.record()
    llama.run([(prompt, output)] * 8)  # warm, as the others' second run is
    started_s = time.perf_counter()
    frames = llama.run([(prompt, output)] * count)
    ours = sum(frames.counts) / (time.perf_counter() - started_s)
    del llama
    gc.collect()
    torch.cuda.empty_cache()
    rows = []
    for name, python in peers(os.environ).items():
        figure, reason = ask(name, python)
        if reason:
            print(f"peer {name}: skipped, {reason}", flush=True)
        else:
            cell = f"{count} requests bfloat16, {prompt}/{output}: next to {name}"
            rows.append(Row(cell, "tokens/s", ours, figure, None))
    return rows


def peers(environment: Mapping[str, str]) -> dict[str, str]:
    """Whom to ask, and with which Python."""
    found = {"transformers": environment.get("TRIVET_BENCH_TRANSFORMERS", sys.executable)}
    if python := environment.get("TRIVET_BENCH_VLLM"):
        found["vllm"] = python
    return found


def ask(name: str, python: str, load: tuple[int, int, int] = LOAD) -> tuple[float, str]:
    """Output tokens a second, or why there are none."""
    program = Path(__file__).with_name(f"peer_{name}.py")
    given = json.dumps({"model": hub_config(LLAMA), "load": load})
    try:
        done = subprocess.run(
            [python, str(program)], input=given, capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 0.0, str(error)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return 0.0, (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    figure: float = json.loads(lines[-1])["tokens_per_s"]
    return figure, ""


def hub_config(config: LlamaShape) -> dict[str, object]:
    """As Hugging Face's config.json says it, without the scaling of far positions."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": 8192,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.ties_embeddings,
    }

"""A program: requests through vLLM, over random weights: no checkpoint, no tokenizer, no network.

Standard input and output are those of peer_transformers.py. It needs nothing of ours.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name, _value in (
    ("VLLM_NO_USAGE_STATS", "1"),
    ("DO_NOT_TRACK", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("VLLM_LOGGING_LEVEL", "WARNING"),
):
    os.environ.setdefault(_name, _value)


def main() -> None:
    """Runs twice; tells of the second."""
    import torch

    vllm: Any = importlib.import_module("vllm")  # not among our own dependencies
    given = json.load(sys.stdin)
    count, prompt, output = given["load"]
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(5, given["model"]["vocab_size"], (count, prompt), generator=chance).tolist()
    with tempfile.TemporaryDirectory() as folder:
        values = {**given["model"], "torch_dtype": "bfloat16", "hidden_act": "silu"}
        (Path(folder) / "config.json").write_text(json.dumps(values))
        engine = vllm.LLM(
            model=folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16",
            max_model_len=4096, gpu_memory_utilization=0.9, enable_prefix_caching=False,
            max_num_seqs=256,
        )  # fmt: skip
        sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=output, ignore_eos=True, detokenize=False
        )
        for _ in range(2):
            started_s = time.perf_counter()
            outputs = engine.generate(
                [{"prompt_token_ids": each} for each in ids], sampling, use_tqdm=False
            )
            elapsed_s = time.perf_counter() - started_s
    made = sum(len(each.outputs[0].token_ids) for each in outputs)
    print(json.dumps({"tokens_per_s": made / elapsed_s}), flush=True)


if __name__ == "__main__":
    main()

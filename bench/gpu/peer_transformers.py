"""A program: requests through transformers' continuous batching, over random weights.

Standard input: {"model": a config.json, "load": [requests, prompt, output]}. Prints
{"tokens_per_s"} of its second run, for whose graphs and memory the first has seen. It needs nothing
of ours, so that any environment can run it.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Runs twice. FlashAttention-3 where it is: only with it do decode steps have a fast path."""
    import torch

    # Its own annotations end at its doors.
    transformers: Any = importlib.import_module("transformers")
    given = json.load(sys.stdin)
    count, prompt, output = given["load"]
    values = {key: value for key, value in given["model"].items() if key != "rope_theta"}
    rope = {"rope_type": "default", "rope_theta": given["model"]["rope_theta"]}
    config = transformers.LlamaConfig(
        **values, rope_parameters=rope, bos_token_id=None, eos_token_id=None
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    has_fa3 = importlib.util.find_spec("flash_attn_interface") is not None
    attention = "flash_attention_3" if has_fa3 and device == "cuda" else "sdpa"
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config,
            dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            attn_implementation=f"paged|{attention}",
        ).eval()
    chance = torch.Generator().manual_seed(0)
    requests = torch.randint(5, config.vocab_size, (count, prompt), generator=chance).tolist()
    small: dict[str, Any] = (
        {} if device == "cuda" else {"num_blocks": 64, "max_batch_tokens": 64, "block_size": 16}
    )
    batching = transformers.ContinuousBatchingConfig(allow_block_sharing=False, **small)
    generation = transformers.GenerationConfig(
        max_new_tokens=output, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    with torch.no_grad():  # inference mode would forbid its thread to write
        for _ in range(2):
            started_s = time.perf_counter()
            outputs = model.generate_batch(
                inputs=requests, generation_config=generation, continuous_batching_config=batching,
                persistent_manager=True,
            )  # fmt: skip
            elapsed_s = time.perf_counter() - started_s
    made = sum(len(each.generated_tokens) for each in outputs.values())
    print(json.dumps({"tokens_per_s": made / elapsed_s, "attention": attention}), flush=True)
    model.destroy_cached_continuous_batching_manager()


if __name__ == "__main__":
    main()

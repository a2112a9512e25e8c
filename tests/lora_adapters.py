"""Adapters of tiny random models, made by `peft`, and what `peft` makes of them when it merges."""

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def write_adapter(base: Any, folder: Path, seed: int, **given: Any) -> Any:
    """An adapter of `base` with weights of its own, as `save_pretrained` writes it; returns what
    the base becomes with it merged."""
    wanted: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": list(ALL_LINEAR)} | given
    tokens = wanted.pop("tokens", 0)
    chance = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(base)
    if tokens:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **wanted))
        for name, weight in adapted.named_parameters():
            if weight.requires_grad or (tokens and ("embed_tokens" in name or "lm_head" in name)):
                noise = torch.randn(weight.shape, generator=chance)
                weight.data = noise * 0.3 if "lora" in name else weight.data + noise * 0.1
        adapted.save_pretrained(str(folder), save_embedding_layers=True if tokens else "auto")
        return adapted.merge_and_unload().eval()


def edit(folder: Path, **changes: Any) -> None:
    """Writes an adapter_config.json with other values."""
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(folder: Path, change: Any) -> None:
    """Writes an adapter's weights as `change` makes them of themselves."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """What `transformers` goes on with."""
    given = torch.tensor([list(prompt)])
    with torch.inference_mode():
        output = model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=count,
            min_new_tokens=count, eos_token_id=10_000, pad_token_id=0,
        )  # fmt: skip
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens

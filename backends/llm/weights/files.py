"""Reads a language model from disk: a Hugging Face folder, or GGUF."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import check_readable
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.quantisation import quantisation
from trivet.backends.llm.families.registry import FAMILIES, from_gguf, from_hub
from trivet.backends.llm.families.staging import WHOLE, Held, Stage
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, hub_tokenizer
from trivet.backends.llm.weights.documents import described, read_json, reason_of, shards
from trivet.backends.llm.weights.gguf_parts import read_model
from trivet.backends.llm.weights.gguf_weights import gguf_weights
from trivet.backends.llm.weights.quantised.reading import pack_quantised
from trivet.backends.llm.weights.stacked import unstack

_CORRECTION = ".e_score_correction_bias"


def load_model(
    path: Path,
    dtype: torch.dtype,
    families: Sequence[Family] = FAMILIES,
    stage: Stage = WHOLE,
) -> tuple[LlmConfig, dict[str, Stored], TokenizerFiles]:
    """Config, weights, of one type or packed, by Hugging Face's names, and tokenizer; of one of
    the families. Of the weights those of a stage. Raises LoadFailed."""
    if path.is_dir():
        values = read_json(path / "config.json")
        config = from_hub(values, families)
        held = Held(stage, config)
        weights: dict[str, Stored] = {
            name: each for name, each in read_safetensors(path).items() if held.has(name)
        }
        if files := quantisation(values.get("quantization_config") or {}):
            pack_quantised(weights, files, dtype)
        unstack(weights, config, dtype)
        for name, weight in weights.items():
            if isinstance(weight, Tensor):
                weights[name] = _in_type(name, weight, dtype)
        return config, weights, hub_tokenizer(path)
    model = read_model(path)
    metadata = described(path, model)
    config = from_gguf(metadata, model.tensors, families)
    held = Held(stage, config)
    return config, gguf_weights(model, config, dtype, held), gguf_tokenizer(metadata)


def read_safetensors(folder: Path) -> dict[str, Tensor]:
    """A folder's weights by name, as they are. Raises LoadFailed."""
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    for name in shards(folder):
        try:
            check_readable(folder / name)
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no mapping
                    weights[key] = file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise LoadFailed(f"'{name}' cannot be read: {reason_of(error)}") from error
    return weights


def _in_type(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales stay what they are, and so do corrections of a router's scores, which differ
    little."""
    is_kept = name.endswith(("_scale", _CORRECTION))
    return weight.to(torch.float32 if is_kept else dtype)

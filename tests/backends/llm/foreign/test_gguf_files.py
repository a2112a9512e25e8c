"""GGUF files of architectures without a family, which transformers' own tables know."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from decoder_classes import compare, open_folder
from gguf_files import CONTROL, NORMAL, write_gguf
from tiny_decoders import VOCABULARY, tiny_model
from torch import Tensor
from transformers.modeling_gguf_pytorch_utils import (
    GGUF_CONFIG_MAPPING,
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from trivet.backends.api import LoadFailed
from trivet.backends.llm.foreign.gguf_files import read_gguf

F32 = gguf.GGMLQuantizationType.F32
PIECES = ["<unk>", "<s>", "</s>", *map(chr, range(33, 33 + VOCABULARY - 3))]
TOKENIZER = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": PIECES,
    "tokenizer.ggml.scores": [-float(index) for index in range(VOCABULARY)],
    "tokenizer.ggml.token_type": [2, CONTROL, CONTROL, *[NORMAL] * (VOCABULARY - 3)],
}


def squeezed(name: str, weight: Tensor) -> Tensor:
    """What llama.cpp's converter does to convolutions and to Mamba's decay."""
    if name.endswith("ssm_a"):
        return -weight.exp()
    return weight.squeeze(1) if "conv" in name and name.endswith("weight") else weight


def of_lfm2(model: Any) -> dict[str, Any]:
    kinds = model.config.layer_types
    return {
        "attention.head_count_kv": [2 * (kind == "full_attention") for kind in kinds],
        "feed_forward_length": model.model.layers[0].feed_forward.w1.weight.shape[0],
    }


OWN: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "mamba": lambda model: {"feed_forward_length": 0, "attention.head_count": 0},
    "lfm2": of_lfm2,
}
"""Keys that a config.json has not."""


def metadata_of(model: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """By transformers' table."""
    config = model.config
    values = {**config.to_dict(), "rope_theta": 1e6, "vocab_size": VOCABULARY}
    keys = {
        key: values[name]
        for key, name in GGUF_CONFIG_MAPPING[config.model_type].items()
        if values.get(name) is not None
    }
    keys |= OWN[config.model_type](model)
    keys |= more
    return TOKENIZER | {f"{config.model_type}.{key}": value for key, value in keys.items()}


def written(path: Path, model: Any, more: Mapping[str, Any], *, parts: int = 0) -> Path:
    """A model's file; `parts`: tensors in each, of several."""
    kind = model.config.model_type
    change = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config={})
    state = model.state_dict()
    names = get_gguf_hf_weights_map(model, change)
    if model.config.tie_word_embeddings:
        names.pop("output.weight")
    tensors = {name: (squeezed(name, state[theirs]).numpy(), F32) for name, theirs in names.items()}
    write_gguf(path, kind, metadata_of(model, more), tensors, tensors_per_part=parts)
    return path


@pytest.mark.parametrize("model_type", [pytest.param("mamba", marks=pytest.mark.slow), "lfm2"])
def test_files_that_transformers_tables_know_give_what_generate_gives(
    model_type: str, tmp_path: Path
) -> None:
    model = tiny_model(model_type)
    driven = open_folder(written(tmp_path / "model.gguf", model, {}), with_families=True)
    compare(driven, model)


def test_files_in_parts_are_read_as_one(tmp_path: Path) -> None:
    model = tiny_model("lfm2")
    written(tmp_path / "model.gguf", model, {}, parts=10)
    parts = sorted(tmp_path.glob("model-*.gguf"))
    assert len(parts) > 2
    _, tensors, _ = read_gguf(parts[0], torch.float32)
    for name, weight in model.named_parameters():
        assert torch.equal(tensors[name], weight)


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("lfm2", {"attention.scale": 2.0}, r"lfm2.attention.scale 2.0, which transformers' table"),
        ("rwkv6", {}, r"'rwkv6'; supported are .*nor by transformers' own classes: transf.*'lfm2'"),
    ],
)
def test_what_the_tables_do_not_know_is_refused(
    kind: str, more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    metadata = {f"{kind}.{key}": value for key, value in more.items()}
    write_gguf(path, kind, TOKENIZER | metadata, {})
    with pytest.raises(LoadFailed, match=reason):
        open_folder(path, with_families=True)

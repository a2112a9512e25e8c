"""GGUF files of models that transformers computes: its tables say what keys and tensors are called.

The tables pass over what they do not know. Here that is refused: it may change what a model gives.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.foreign.classes import Found, find_class
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles
from trivet.backends.llm.weights.gguf_parts import GgufModel, read_model
from trivet.backends.llm.weights.gguf_weights import gguf_values

_SAYS_NOTHING = {"vocab_size", "attention.causal", "context_length", "pooling_type"}


def read_gguf(path: Path, dtype: torch.dtype) -> tuple[Found, dict[str, Tensor], TokenizerFiles]:
    """A class, weights by the names that its files have, and the tokenizer. Raises LoadFailed."""
    model = read_model(path)
    metadata = Described(model.metadata, f"the metadata of '{path.name}'")
    found = find_class(_config(path, metadata))
    return found, _weights(model, found, dtype), gguf_tokenizer(metadata)


def _config(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """As config.json would have it."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_CONFIG_MAPPING, load_gguf_checkpoint

    from trivet.backends.hugging_face.library import transformers

    architecture = str(metadata.get("general.architecture", "?"))
    known = GGUF_CONFIG_MAPPING.get(architecture.replace("-", "_"))
    if known is None:
        raise LoadFailed(
            f"transformers {transformers.__version__} reads GGUF files of "
            f"{sorted(GGUF_CONFIG_MAPPING.keys() - {'general', 'tokenizer'})}"
        )
    for name, value in metadata.items():
        own = name.removeprefix(f"{architecture}.")
        if own == name or own in known or own in _SAYS_NOTHING or value == 0:
            continue
        raise LoadFailed(
            f"the GGUF file has {name} {str(value)[:64]}, which transformers' table of '"
            f"{architecture}' does not know and which may change what the model gives"
        )
    try:
        config: dict[str, Any] = load_gguf_checkpoint(str(path))["config"]
    except FAULTS as error:
        raise LoadFailed(f"transformers cannot read '{path.name}': {error}") from error
    return config


def _weights(model: GgufModel, found: Found, dtype: torch.dtype) -> dict[str, Tensor]:
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    architecture = model.metadata["general.architecture"]
    change = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=found.config.to_dict())
    try:
        with torch.device("meta"):
            names = get_gguf_hf_weights_map(found.kind(found.config), change)
    except FAULTS as error:
        raise LoadFailed(f"transformers cannot make {found.name}: {error}") from error
    weights: dict[str, Tensor] = {}
    for name, values in gguf_values(model):
        try:
            changed = change.process(
                weights=values,
                name=name,
                tensor_key_mapping=names,
                parsed_parameters={"tensors": weights},
            )
        except FAULTS as error:
            raise LoadFailed(f"transformers cannot read tensor '{name}': {error}") from error
        if changed.name is None:
            continue  # it has been put in
        if changed.name not in names:
            raise LoadFailed(
                f"the GGUF file has tensor '{name}', which {found.name} of transformers has not"
            )
        weights[names[changed.name]] = torch.from_numpy(np.copy(changed.weights)).to(dtype)
    return weights

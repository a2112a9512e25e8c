"""Small GGUF files, with a byte-level vocabulary trained on the spot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""llama.cpp's types of tokens."""
MARKS = {"<s>": CONTROL, "</s>": CONTROL, "<turn>": CONTROL, "<think>": USER_DEFINED}
TEXT = """
It's the year 2024, and we'll see 1234567 ways that they've tried; I'd say THEY'RE done.
def area(radius):  return 3.14159 * radius ** 2\n\n\n\tif x != y: print("naïve café", x)
Les élèves étaient là: où ça? Größe, Straße, 東京都に行きました。 Привет, мир! 🙂🙂 100%
the the the there their then they them these this that those than thank thanks
"""

Tensors = Mapping[str, tuple[np.ndarray[Any, Any], gguf.GGMLQuantizationType]]
"""Values in float32, and the type in which the file holds them."""


def trained(pre_tokenizer: Any, *, vocabulary_size: int = 380) -> dict[str, Any]:
    """GGUF's metadata of a byte-level BPE tokenizer that splits text in some way."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    merges = [f"{left} {right}" for left, right in _merges(tokenizer)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [MARKS.get(token, NORMAL) for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("</s>"),
    }


def _merges(tokenizer: Any) -> list[Sequence[str]]:
    found: list[Sequence[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return found


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Tensors,
    *,
    tensors_per_part: int = 0,
) -> None:
    """One file, of which the metadata say all that is not the architecture; or its parts."""
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_part)
    for name, value in metadata.items():
        _add(writer, name, value)
    for name, (values, kind) in tensors.items():
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)

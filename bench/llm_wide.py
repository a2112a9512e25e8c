"""A made Llama of width 2048 as GGUF files: what its steps cost does not depend on what its weights
are, so codes are random and only scales are such that numbers stay small."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 2048, 8192, 16, 32, 8
CONTEXT = 2048
Kind = GGMLQuantizationType
_SCALES = {Kind.Q4_0: ((0, 2e-3),), Kind.Q4_K: ((0, 1e-4), (2, 1e-3)), Kind.Q6_K: ((208, 2e-5),)}
"""By type: where a block has a float16 that scales it, and what that becomes."""
FILE_TYPES = {"Q4_0": 2, "Q4_K_M": 15}
"""llama.cpp's numbers of the mixtures that can be made."""


def wide_gguf(mixture: str, vocabulary: Path, target: Path, layers: int = LAYERS) -> Path:
    """A file of one of FILE_TYPES; `vocabulary`: a GGUF file whose tokenizer it gets."""
    reader = GGUFReader(vocabulary)
    writer = GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            outer = field.types[0]
            element = field.types[-1] if outer == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), outer, element)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(FILE_TYPES[mixture])
    num_tokens = len(reader.fields["tokenizer.ggml.tokens"].contents())
    chance = np.random.default_rng(1)
    for name, kind, rows, columns in _matrices(mixture, num_tokens, layers):
        writer.add_tensor(name, _random(kind, rows, columns, chance), raw_dtype=kind)
    for name in _norms(layers):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _matrices(mixture: str, num_tokens: int, layers: int) -> Iterator[tuple[str, Kind, int, int]]:
    """Names, types, outputs and inputs. Some of Q4_K_M's are finer, as llama.cpp has it."""
    is_mixed = mixture == "Q4_K_M"
    usual = Kind.Q4_K if is_mixed else Kind.Q4_0
    yield "token_embd.weight", Kind.Q6_K if is_mixed else usual, num_tokens, WIDTH
    states = WIDTH // HEADS * KV_HEADS
    for layer in range(layers):
        is_finer = layer < layers // 8 or layer >= 7 * layers // 8
        is_finer = is_mixed and (is_finer or (layer - layers // 8) % 3 == 2)
        finer, stem = Kind.Q6_K if is_finer else usual, f"blk.{layer}"
        yield f"{stem}.attn_q.weight", usual, WIDTH, WIDTH
        yield f"{stem}.attn_k.weight", usual, states, WIDTH
        yield f"{stem}.attn_v.weight", finer, states, WIDTH
        yield f"{stem}.attn_output.weight", usual, WIDTH, WIDTH
        yield f"{stem}.ffn_gate.weight", usual, INNER, WIDTH
        yield f"{stem}.ffn_up.weight", usual, INNER, WIDTH
        yield f"{stem}.ffn_down.weight", finer, WIDTH, INNER


def _norms(layers: int) -> Iterator[str]:
    yield "output_norm.weight"
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm.weight"
        yield f"blk.{layer}.ffn_norm.weight"


def _random(
    kind: Kind, rows: int, columns: int, chance: np.random.Generator
) -> np.ndarray[Any, Any]:
    """[rows, bytes of a row]."""
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = chance.integers(0, 256, (rows, columns // numbers, size), dtype=np.uint8)
    for place, value in _SCALES[kind]:
        blocks[..., place : place + 2] = np.array([value], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)

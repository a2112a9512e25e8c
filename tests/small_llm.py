"""A random language model that reads and writes as SmolLM2 does, and computes next to nothing: what
an API makes of an output is the same whatever the output says."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_files import write_gguf

from trivet.backends.llm.weights.gguf_header import read_header

KEY, WORD, END = "Ġis", "ĠParis", "<|im_end|>"
"""What it says after ` is` is ` Paris`, so that tests know a word."""
HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, HEAD_SIZE = 64, 128, 2, 4, 2, 16
SIZES = {
    "llama.embedding_length": HIDDEN, "llama.feed_forward_length": MLP,
    "llama.block_count": LAYERS, "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS, "llama.rope.dimension_count": HEAD_SIZE,
}  # fmt: skip
SAME, IS_KEY = HIDDEN - 2, HIDDEN - 1
"""Numbers that no layer reads or writes: one is the same for all, the other marks the key."""
KEY_STRENGTH, WORD_STRENGTH = 30.0, 3.3
"""The word is all but certain, and yet not the only one that can be drawn."""
END_STRENGTH, SPACE_STRENGTH = 7.0, -30.0
"""Where a grammar forbids words, it rather ends, and writes no white space for ever."""
COMMON, RARE = 0.4, 0.1
"""How far the logits of words lie apart, and those of all other tokens, which it hardly says."""

Matrix = np.ndarray[Any, Any]


def write_small_gguf(path: Path, original: Path) -> None:
    """With the tokenizer, the chat template and the length of `original`."""
    metadata = {**read_header(original).metadata, **SIZES}
    architecture = metadata.pop("general.architecture")
    kind = gguf.GGMLQuantizationType.F32
    tensors = _tensors(metadata["tokenizer.ggml.tokens"])
    write_gguf(path, architecture, metadata, {name: (each, kind) for name, each in tensors.items()})


def _tensors(tokens: list[str]) -> dict[str, Matrix]:
    chance = np.random.default_rng(5)

    def rows(count: int, width: int = HIDDEN, size: float = 0.2) -> Matrix:
        return (size * chance.standard_normal((count, width))).astype(np.float32)

    is_word = np.array([token[:1] == "Ġ" and token[1:].isalpha() for token in tokens])
    embedding, head = rows(len(tokens), size=1.0), rows(len(tokens), size=1.0)
    head *= np.where(is_word, COMMON, RARE).astype(np.float32)[:, None]
    embedding[:, SAME], embedding[:, IS_KEY] = 1.0, 0.0
    embedding[tokens.index(KEY), IS_KEY] = KEY_STRENGTH
    head[:, SAME:] = 0.0
    head[tokens.index(WORD), IS_KEY] = WORD_STRENGTH
    head[[not token.strip("ĠĊĉč") for token in tokens], SAME] = SPACE_STRENGTH
    head[tokens.index(END), SAME] = END_STRENGTH
    made = {
        "token_embd.weight": embedding, "output.weight": head,
        "output_norm.weight": np.ones(HIDDEN, np.float32),
    }  # fmt: skip
    for layer in range(LAYERS):
        own = {
            "attn_q": rows(HEADS * HEAD_SIZE), "attn_k": rows(KV_HEADS * HEAD_SIZE),
            "attn_v": rows(KV_HEADS * HEAD_SIZE), "ffn_gate": rows(MLP), "ffn_up": rows(MLP),
        }  # fmt: skip
        for each in own.values():
            each[:, SAME:] = 0.0
        back = {"attn_output": rows(HIDDEN, HEADS * HEAD_SIZE), "ffn_down": rows(HIDDEN, MLP)}
        for each in back.values():
            each[SAME:] = 0.0
        norms = dict.fromkeys(("attn_norm", "ffn_norm"), np.ones(HIDDEN, np.float32))
        made |= {f"blk.{layer}.{n}.weight": each for n, each in (own | back | norms).items()}
    return made

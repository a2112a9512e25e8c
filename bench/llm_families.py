"""Families next to Llama, and models without a family next to our own way: decode steps and whole
requests, in turn, with the bars of what each may cost more."""

from collections.abc import Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench.figures import Measure, Row, in_turn, ratio_row
from bench.llm_decoders import MOST_STREAMS, Decoder, decode_step, rate
from bench.llm_generating import bench_generating, fallback_of
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.models.mlps import Experts
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

SIZES = {
    "vocab_size": 16_000, "hidden_size": 1024, "num_hidden_layers": 12,
    "max_position_embeddings": 2048,
}  # fmt: skip
LLAMA = SIZES | {"intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 8}
SHAPES = {
    "Gemma2": SIZES | {
        "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 128, "sliding_window": 128, "tie_word_embeddings": False,
    },
    "Phi": SIZES | {"intermediate_size": 4096, "num_attention_heads": 16,
                    "num_key_value_heads": 8},
}  # fmt: skip
"""As wide and as deep as the Llama, with as many keys and values."""
MOST_A_BYTE = 1.15
LEAST_OF_OURS = 0.85
EXPERT = 1408
NUM_EXPERTS, NUM_ACTIVE = 8, 2
MIXTURE = LLAMA | {
    "num_hidden_layers": 6, "intermediate_size": EXPERT, "num_local_experts": NUM_EXPERTS,
    "num_experts_per_tok": NUM_ACTIVE,
}  # fmt: skip
MOST_OF_ACTIVE, MOST_OF_TOUCHED = 1.3, 1.15
"""At 1 stream next to a dense model of the active size, at 16 next to one of the experts that are
touched."""


def bench_llm_families(seconds: float, rounds: int) -> list[Row]:
    """Ratios with their intervals: fewer than 6 rounds give their range."""
    each_s = seconds / 8
    return [
        *_fallback_steps(each_s, rounds),
        *bench_generating(LLAMA, rounds),
        *_shapes(each_s, rounds),
        *_mixtures(each_s, rounds),
    ]


def _fallback_steps(seconds: float, rounds: int) -> list[Row]:
    decoder = Decoder.of("Llama", **LLAMA)
    theirs, own = fallback_of(LLAMA, decoder.weights), in_torch(decoder)
    rows = []
    for streams in (1, 16, MOST_STREAMS):
        cell = f"Llama by transformers' class next to our torch model, {streams} streams"
        sides = _steps({"ours": theirs, "bare": own}, streams, seconds)
        rows.append(_row(cell, sides, rounds, 1 / LEAST_OF_OURS))
    return rows


def _shapes(seconds: float, rounds: int) -> list[Row]:
    """A step of each, by the bytes of its weights."""
    llama = Decoder.of("Llama", **LLAMA)
    bare = llama.model()
    rows = []
    for name, sizes in SHAPES.items():
        decoder = Decoder.of(name, **sizes)
        ours, by = decoder.model(), decoder.read_bytes / llama.read_bytes
        for streams in (1, 16):
            cell = f"{name}-shaped next to Llama by weight bytes, {streams} streams"
            sides = _steps({"ours": ours, "bare": bare}, streams, seconds)
            note = f"{by:.2f} of its bytes"
            rows.append(_row(cell, sides, rounds, MOST_A_BYTE, by=by, note=note))
    return rows


def _mixtures(seconds: float, rounds: int) -> list[Row]:
    decoder = Decoder.of("Mixtral", **MIXTURE)
    ours = decoder.model()
    touched = _touched(decoder, 16)
    rows = []
    for streams, active, most in ((1, NUM_ACTIVE, MOST_OF_ACTIVE), (16, touched, MOST_OF_TOUCHED)):
        inner = round(active * EXPERT / 32) * 32
        dense = Decoder.of("Llama", **(MIXTURE | {"intermediate_size": inner})).model()
        cell = (
            f"{NUM_EXPERTS} experts, {NUM_ACTIVE} active, next to a dense model, {streams} streams"
        )
        note = f"dense as wide as {active:.2f} experts"
        sides = _steps({"ours": ours, "bare": dense}, streams, seconds)
        rows.append(_row(cell, sides, rounds, most, note=note))
    return rows


@torch.no_grad()
def _touched(decoder: Decoder, streams: int) -> float:
    """How many experts a step asks, the mean of its layers: counted where torch computes them."""
    counts = []
    computed = Experts._of_experts  # noqa: SLF001  # nothing outside need know

    def noted(self: Experts, rows: Tensor, chosen: Tensor, tokens: Tensor) -> Tensor:
        counts.append(len(set(chosen.flatten().tolist())))
        return computed(self, rows, chosen, tokens)

    with mock.patch.object(Experts, "_of_experts", noted):
        in_torch(decoder).forward(decode_step(streams))
    return sum(counts) / len(counts)


def in_torch(decoder: Decoder) -> Model:
    """Our way without the compiled step."""
    attention = TorchAttention(decoder.cache(), decoder.config.attentions)
    return TorchDecoder(Weights(decoder.weights, decoder.config), attention)


def _steps(models: Mapping[str, Model], streams: int, seconds: float) -> dict[str, Measure]:
    inputs = decode_step(streams)

    def measure(model: Model) -> Measure:
        return lambda: rate(model, inputs, seconds)

    return {side: measure(model) for side, model in models.items()}


def _row(cell: str, sides: Mapping[str, Measure], rounds: int, most: float, **more: Any) -> Row:
    """`most`: how many times as long a token may take."""
    return ratio_row(cell, "tokens/s", in_turn(sides, rounds), 1 / most, **more)

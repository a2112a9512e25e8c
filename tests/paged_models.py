"""Random models of transformers, and the same weights over a paged cache."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf_files import trained
from tokenizers import pre_tokenizers
from torch import Tensor

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.weights.taking import Weights

MAX_POSITIONS = 256
LENGTHS = (37, 70, 5, 64)
"""Of the sequences: within, at and beyond the borders of blocks."""

SHAPE: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITIONS,
    "rope_theta": 500.0,
}

Steps = Sequence[Sequence[int]]
"""For each step, how many tokens of each sequence it computes."""


def whole() -> Steps:
    """Every prompt in one step."""
    return [LENGTHS]


def chunked() -> Steps:
    """At most 16 tokens a sequence and step, so that sequences end at different times."""
    longest = max(LENGTHS)
    return [[max(0, min(16, n - done)) for n in LENGTHS] for done in range(0, longest, 16)]


def one_by_one() -> Steps:
    """All tokens but the first 3 are decoded."""
    first = [[3] * len(LENGTHS)]
    return first + [[int(done < n) for n in LENGTHS] for done in range(3, max(LENGTHS))]


def mixed() -> Steps:
    """Random pieces: sequences join, pause, and decode next to others' chunks."""
    chance = random.Random(5)
    left = list(LENGTHS)
    steps = []
    while any(left):
        step = [min(n, chance.choice((0, 1, 1, 2, 17))) for n in left]
        left = [n - count for n, count in zip(left, step, strict=True)]
        if any(step):
            steps.append(step)
    return steps


def random_model(family: str, changes: dict[str, Any]) -> Any:
    """A model of transformers whose every weight matters to its logits."""
    config = getattr(transformers, f"{family}Config")(**(SHAPE | changes))
    config.architectures = [f"{family}ForCausalLM"]
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    return made_random(getattr(transformers, f"{family}ForCausalLM")(config))


def made_random(model: Any) -> Any:
    """With weights of which each matters to the logits."""
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.15 * noise)
    return model


def save_model(folder: Path) -> Path:
    """A small random model with a tokenizer, as Hugging Face's folders have them."""
    made = random_model("Llama", {"num_hidden_layers": 2, "vocab_size": 400})
    made.config.eos_token_id = 1
    made.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Of 400 tokens at most."""
    metadata = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    (folder / "tokenizer.json").write_text(gguf_tokenizer(Described(metadata, "a file")).json)


def reference(model: Any, prompts: list[list[int]]) -> list[Tensor]:
    """Logits of each prompt, computed alone and without a cache."""
    with torch.no_grad():
        return [model(torch.tensor([prompt]), use_cache=False).logits[0] for prompt in prompts]


def torch_model(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
    """The reference."""
    attention = TorchAttention(cache, config.attentions)
    return TorchDecoder(Weights(weights, config), attention)


class Paged:
    """A model, and sequences whose blocks lie scattered in its cache."""

    def __init__(
        self,
        config: LlmConfig,
        weights: Mapping[str, Stored],
        block_size: int,
        lengths: Sequence[int],
        make: Callable[[LlmConfig, Mapping[str, Stored], KvCache], Model] = torch_model,
        kept: torch.dtype | None = None,
        scales: list[tuple[float, float]] | None = None,
    ) -> None:
        """`kept`, `scales`: of a cache of 8 bits."""
        counts = [-(-length // block_size) for length in lengths]
        like = next(iter(weights.values()))
        cache = KvCache(
            config, sum(counts) + 1, block_size, kept or like.dtype, like.device, scales, like.dtype
        )
        for layer in cache.layers:
            layer[:, 1:] = torch.nan  # what was never written must never be read
        self.model = make(config, weights, cache)
        self._block_size = block_size
        self._device = like.device
        blocks = list(range(1, sum(counts) + 1))
        random.Random(1).shuffle(blocks)
        self._tables = [[blocks.pop() for _ in range(count)] for count in counts]

    @torch.inference_mode()
    def run(self, prompts: list[list[int]], steps: Steps) -> list[Tensor]:
        """Logits of all tokens of each prompt, [tokens, vocabulary]."""
        done = [0] * len(prompts)
        found: list[list[Tensor]] = [[] for _ in prompts]
        for step in steps:
            rows = [row for row, count in enumerate(step) if count]
            logits = self.model.forward(self._inputs(prompts, rows, done, step))
            parts = torch.split(logits, [step[row] for row in rows])
            for row, part in zip(rows, parts, strict=True):
                found[row].append(part)
                done[row] += step[row]
        return [torch.cat(parts) for parts in found]

    def _inputs(
        self, prompts: list[list[int]], rows: list[int], done: list[int], step: Sequence[int]
    ) -> StepInputs:
        spans = [(row, range(done[row], done[row] + step[row])) for row in rows]
        starts = torch.tensor([0, *(step[row] for row in rows)]).cumsum(0)
        size = self._block_size
        width = max(len(self._tables[row]) for row in rows)
        tables = [self._tables[row] for row in rows]
        given = StepInputs(
            token_ids=torch.tensor([prompts[row][at] for row, span in spans for at in span]),
            positions=torch.tensor([at for _, span in spans for at in span]),
            slot_mapping=torch.tensor(
                [self._tables[row][at // size] * size + at % size for row, span in spans
                 for at in span]
            ),
            query_starts=starts.int(),
            sequence_lengths=torch.tensor([span.stop for _, span in spans], dtype=torch.int32),
            block_tables=torch.tensor(
                [table + [0] * (width - len(table)) for table in tables], dtype=torch.int32
            ),
            sample_rows=torch.arange(int(starts[-1])),
        )  # fmt: skip
        return given.to(self._device)

"""Decoders of random weights and their decode steps: what a step costs does not depend on what its
weights are, only on their sizes."""

import time
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from bench.figures import Figures
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.device.devices import choose_dtype
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

CONTEXT = 256
"""Tokens that each sequence has."""
BLOCK_SIZE = 16
MOST_STREAMS = 32
MIN_STEPS = 3
DTYPE = choose_dtype("auto")
_NOISE = 1 << 22
"""So many random numbers, of which all weights are made."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model, and its weights by Hugging Face's names."""

    config: LlmConfig
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, family: str, **sizes: Any) -> "Decoder":
        """`family`: what names of transformers' classes begin with."""
        import transformers

        config = getattr(transformers, f"{family}Config")(**sizes)
        hub_class = f"{family}ForCausalLM"
        config.architectures = [hub_class]
        with torch.device("meta"):
            made = getattr(transformers, hub_class)(config)
        shapes = {name: weight.shape for name, weight in made.state_dict().items()}
        noise = (torch.randn(_NOISE, generator=torch.Generator().manual_seed(3)) * 0.03).to(DTYPE)
        weights = {name: _weight(name, shape, noise) for name, shape in shapes.items()}
        return cls(from_hub(config.to_dict()), _by_expert(weights))

    @property
    def read_bytes(self) -> int:
        """What one step of one token reads of the weights, all experts' if there are any."""
        sizes = (weight.nbytes for weight in self.weights.values())
        embedding = self.weights["model.embed_tokens.weight"].nbytes
        return sum(sizes) - (0 if self.config.ties_embeddings else embedding)

    def model(self) -> Model:
        """As it is served: the fastest way that there is on this machine."""
        return make_model(Weights(self.weights, self.config), self.cache())

    def cache(self) -> KvCache:
        """For as many streams as any step has."""
        blocks = MOST_STREAMS * CONTEXT // BLOCK_SIZE + 1
        return KvCache(self.config, blocks, BLOCK_SIZE, DTYPE)


def _weight(name: str, shape: torch.Size, noise: Tensor) -> Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=DTYPE) if "norm" in name else torch.zeros(shape, dtype=DTYPE)
    first = Random(name).randrange(_NOISE)
    rolled = torch.roll(noise, first)
    return rolled.repeat(-(-shape.numel() // _NOISE))[: shape.numel()].view(shape)


def _by_expert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names of files, in which each expert has its own."""
    found = {}
    for name, weight in weights.items():
        stem, _, kind = name.rpartition(".experts.")
        stem = stem.replace(".mlp", ".block_sparse_moe")
        if kind == "gate_up_proj":
            for number, both in enumerate(weight):
                gate, up = both.chunk(2)
                found[f"{stem}.experts.{number}.w1.weight"] = gate
                found[f"{stem}.experts.{number}.w3.weight"] = up
        elif kind == "down_proj":
            for number, down in enumerate(weight):
                found[f"{stem}.experts.{number}.w2.weight"] = down
        else:
            found[name.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = weight
    return found


def decode_step(streams: int, context: int = CONTEXT) -> StepInputs:
    """A token of each, the last of `context`, in blocks that lie anywhere."""
    blocks = list(range(1, streams * context // BLOCK_SIZE + 1))
    Random(1).shuffle(blocks)
    tables = torch.tensor(blocks, dtype=torch.int32).view(streams, -1)
    last: list[int] = tables[:, -1].tolist()
    return StepInputs(
        token_ids=torch.arange(streams) + 20,
        positions=torch.full((streams,), context - 1),
        slot_mapping=torch.tensor([block * BLOCK_SIZE + BLOCK_SIZE - 1 for block in last]),
        query_starts=torch.arange(streams + 1, dtype=torch.int32),
        sequence_lengths=torch.full((streams,), context, dtype=torch.int32),
        block_tables=tables,
        sample_rows=torch.arange(streams),
    )


@torch.no_grad()
def rate(model: Model, inputs: StepInputs, seconds: float) -> Figures:
    """Tokens a second of one step again and again."""
    model.forward(inputs)
    done, started_s = 0, time.perf_counter()
    while done < MIN_STEPS or time.perf_counter() - started_s < seconds:
        model.forward(inputs)
        done += 1
    elapsed_s = time.perf_counter() - started_s
    return {"rate_per_s": done * len(inputs.token_ids) / elapsed_s}

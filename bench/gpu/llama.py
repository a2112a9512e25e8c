"""Llama 3.1 8B in its true shape with random weights, behind our engine: nothing is downloaded."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm.engine.assemble import make_scheduler, make_state
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.families.kinds import RopeScaling
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.loading import LoadedPart, build_part
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.messages import Message, Outputs, Quit, Submit
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.settings import EngineSettings

LLAMA = LlamaShape(
    architecture="llama", hidden_size=4096, num_layers=32, num_heads=32, num_kv_heads=8,
    head_dim=128, intermediate_size=14336, vocabulary_size=128256, max_positions=131072,
    rms_norm_eps=1e-5, rope_theta=5e5, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
)  # fmt: skip
MODEL_LEN = 4096
MOST_SEQUENCES = 256
SETTINGS = EngineSettings(
    "random weights", dtype="bfloat16", device="cuda", max_model_len=MODEL_LEN,
    max_num_seqs=MOST_SEQUENCES, max_batched_tokens=8192, prefix_caching=False,
)  # fmt: skip


class RandomWeights(Mapping[str, Tensor]):
    """Made when asked for, on the device, so that no copy of the model waits on the host."""

    def __init__(self, config: LlamaShape, device: torch.device, dtype: torch.dtype) -> None:
        self._shapes = weight_shapes(config)
        self._device = device
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        weight = torch.empty(shape, dtype=self._dtype, device=self._device)
        return weight.fill_(1.0) if len(shape) == 1 else weight.normal_(0, shape[1] ** -0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def weight_shapes(config: LlamaShape) -> dict[str, tuple[int, ...]]:
    """By Hugging Face's names."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query = config.num_heads * config.head_dim
    states = config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (states, hidden),
        "self_attn.v_proj": (states, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config.num_layers)
        for name, shape in layer.items()
    }
    table = (config.vocabulary_size, hidden)
    return shapes | {
        "model.embed_tokens.weight": table,
        "model.norm.weight": (hidden,),
        "lm_head.weight": table,
    }


@dataclass(slots=True)
class Frames:
    """What the engine sent, and when."""

    times_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Tokens in each frame."""
    tokens: dict[str, list[int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


class RandomLlama:
    """An engine in this process. Owned by the caller's thread."""

    def __init__(self, config: LlamaShape, settings: EngineSettings) -> None:
        self.config, self.settings = config, settings
        device = torch.device(settings.device)
        dtype: torch.dtype = getattr(torch, settings.dtype)
        weights = RandomWeights(config, device, dtype)
        self.loaded: LoadedPart = build_part(settings, config.config(), weights, dtype, device)

    @property
    def cache_tokens(self) -> int:
        """That the cache holds."""
        return (self.loaded.num_blocks - 1) * self.settings.block_size

    def record(self) -> None:
        """All buckets of decode steps, as the engine does in idle moments."""
        while self.loaded.prepare():
            pass

    def run(self, requests: list[tuple[int, int]], *, overlaps: bool = True) -> Frames:
        """Requests of so many random tokens, and so many to come, all at once, to the last."""
        frames, left = Frames(), len(requests)

        def send(message: Message) -> None:
            nonlocal left
            assert isinstance(message, Outputs)
            frames.times_s.append(time.perf_counter())
            frames.counts.append(sum(len(output.token_ids) for output in message.each()))
            for output in message.each():
                frames.tokens.setdefault(output.id, []).extend(output.token_ids)
                left -= bool(output.finish)
                if output.error:
                    frames.errors.append(output.error)
            if not left:
                engine.inbox.put(Quit())

        runner = self.loaded.runner
        engine = Engine(
            make_scheduler(self.settings, self.loaded), make_state(self.settings, self.loaded),
            runner, NoGrammars(), send, runner if overlaps else None,
        )  # fmt: skip
        for number, (prompt, output) in enumerate(requests):
            engine.inbox.put(random_request(self.config, number, prompt, output))
        engine.run()
        return frames


def random_request(config: LlamaShape, number: int, prompt: int, output: int) -> Submit:
    """Greedy, and to the end of its length."""
    chance = torch.Generator().manual_seed(number)
    ids = torch.randint(5, config.vocabulary_size, (prompt,), generator=chance).tolist()
    sampling = Sampling(temperature=0.0, max_tokens=output, ignore_eos=True)
    return Submit(f"{number}", ids, sampling, number, [], [])


def eight_bit(settings: EngineSettings) -> EngineSettings:
    """Weights and cache of 8-bit numbers."""
    assert FP8.itemsize == 1
    return replace(settings, quantization="fp8", kv_cache_dtype="fp8")

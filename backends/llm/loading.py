"""Loads what one process computes of a model: its weights, its cache, and the way to run them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.choice import choose_attention
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.device.cache_size import cache_scales, size_cache
from trivet.backends.llm.device.devices import (
    MemoryUse,
    WeightsOn,
    cache_bytes,
    choose_dtype,
    memory_told,
    weight_bytes,
)
from trivet.backends.llm.device.graphs import CudaRecorder, GraphedModel
from trivet.backends.llm.device.kv_cache import KvCache
from trivet.backends.llm.device.measure import CudaMeter, Meter, largest_step
from trivet.backends.llm.device.runner import Model, TorchRunner
from trivet.backends.llm.device.staging import make_staging
from trivet.backends.llm.models.architectures import model_class
from trivet.backends.llm.models.config import LlmConfig
from trivet.backends.llm.models.linear import FP8
from trivet.backends.llm.native.decoder import NativeModel, why_not
from trivet.backends.llm.native.library import Native, load_native
from trivet.backends.llm.ranks.group import Ranks
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.shards import Part, ShardedWeights, sharded_config

log = logging.getLogger(__name__)


class HeldModel(Model, Protocol):
    """A Model whose cache comes once its size is known."""

    @property
    def is_recordable(self) -> bool:
        """Whether steps of one shape do the same on the device and ask it nothing."""

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A model, or a rank's part of it, ready to run."""

    config: LlmConfig
    """Of the whole model."""
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    num_blocks: int
    runner: TorchRunner
    prepare: Callable[[], bool]
    """Work for idle moments; see Engine."""


def load_part(
    settings: EngineSettings, device: torch.device, ranks: Ranks
) -> tuple[LoadedPart, TokenizerFiles]:
    """What the settings name, and its tokenizer. Raises LoadFailed."""
    dtype = choose_dtype(settings.dtype, device)
    config, weights, files = load_model(Path(settings.model_path), dtype)
    return build_part(settings, config, weights, dtype, device, ranks), files


def build_part(
    settings: EngineSettings,
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    ranks: Ranks,
) -> LoadedPart:
    """One rank's part of a model of these weights. Raises LoadFailed."""
    max_model_len = min(settings.max_model_len or config.max_positions, config.max_positions)
    settings = replace(settings, max_model_len=max_model_len)
    part, mine = Part(ranks, config.vocabulary_size), config
    if ranks.size > 1:
        mine = sharded_config(config, ranks.size)
        weights = ShardedWeights(weights, config, ranks.rank, ranks.size)
    if device.type == "cpu":
        model, num_blocks = _load_plain(settings, mine, weights, part, dtype)
        prepare = _no_work
    else:
        held, num_blocks = _load_measured(settings, mine, weights, part, dtype, device)
        model, prepare = _recorded(held, settings, device)
    runner = TorchRunner(
        model, make_staging(device), max_num_seqs=settings.max_num_seqs, ranks=ranks
    )
    return LoadedPart(config, device, dtype, max_model_len, num_blocks, runner, prepare)


def make_model(
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    cache: KvCache,
    part: Part | None = None,
    *,
    quantises: bool = False,
    attention: str = "auto",
) -> Model:
    """The fastest way to compute the model, or a part of it, where its cache lies. `attention`: on
    a GPU. Raises LoadFailed."""
    if cache.layers[0].device.type != "cpu":
        return _device_model(config, weights, cache, part, attention, quantises=quantises)
    is_whole = part is None or part.ranks.size == 1
    reason = why_not(config, cache.layers[0].dtype) if is_whole else "it computes whole models"
    if quantises or any(weight.dtype == FP8 for weight in weights.values()):
        reason = "it multiplies no 8-bit numbers"
    native = load_native()
    if isinstance(native, Native) and not reason:
        log.info("the compiled step computes, with%s AMX", "" if native.has_amx else "out")
        return NativeModel(config, weights, cache, native)
    log.info("torch computes; the compiled step cannot: %s", reason or native)
    plain = TorchAttention(cache, config.attention_scale, config.sliding_window)
    made = model_class(config.architecture)
    return made(config, weights, plain, part, quantises=quantises)


def _device_model(
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    cache: KvCache,
    part: Part | None,
    attention: str,
    *,
    quantises: bool,
) -> HeldModel:
    chosen = choose_attention(config, cache, attention)
    there = WeightsOn(weights, cache.layers[0].device)
    if isinstance(chosen, TorchAttention):
        plain = model_class(config.architecture)
        return plain(config, there, chosen, part, quantises=quantises)
    from trivet.backends.llm.attention.pages import PagedAttention  # needs Triton
    from trivet.backends.llm.models.fused_llama import FusedLlama

    assert isinstance(chosen, PagedAttention)
    return FusedLlama(config, there, chosen, part, quantises=quantises)


def _recorded(
    model: HeldModel, settings: EngineSettings, device: torch.device
) -> tuple[Model, Callable[[], bool]]:
    """With decode steps that are recorded, if they can be, and what records them."""
    if not settings.cuda_graphs or not model.is_recordable:
        log.info("decode steps are not recorded as CUDA graphs")
        return model, _no_work
    graphed = GraphedModel(
        model,
        CudaRecorder(),
        device,
        max_num_seqs=settings.max_num_seqs,
        max_num_blocks=-(-settings.max_model_len // settings.block_size) + 1,
    )
    return graphed, graphed.record_next


def _load_plain(
    settings: EngineSettings,
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    part: Part,
    dtype: torch.dtype,
) -> tuple[Model, int]:
    """On a processor, whose cache is of a given size."""
    if settings.kv_cache_dtype != "auto":
        raise LoadFailed(
            f"kv_cache_dtype is '{settings.kv_cache_dtype}', which needs a GPU; the model's device "
            "is cpu (model parameters kv_cache_dtype and device)"
        )
    num_blocks = size_cache(config, settings, dtype, cache_bytes(settings, None))
    num_blocks = part.ranks.least(num_blocks)
    cache = KvCache(config, num_blocks, settings.block_size, dtype)
    model = make_model(config, weights, cache, part, quantises=settings.quantization == "fp8")
    return model, num_blocks


def _load_measured(
    settings: EngineSettings,
    config: LlmConfig,
    weights: Mapping[str, Tensor],
    part: Part,
    dtype: torch.dtype,
    device: torch.device,
    meter: Meter | None = None,
) -> tuple[HeldModel, int]:
    """On a GPU: the cache gets what weights and the largest step leave."""
    meter = meter or CudaMeter(device)
    quantises = settings.quantization == "fp8"
    kind = FP8 if settings.kv_cache_dtype == "fp8" else dtype
    scales = cache_scales(weights, config.num_layers)
    use = MemoryUse.before(device, weight_bytes(weights) // (2 if quantises else 1))
    cache_bytes(replace(settings, kv_cache_bytes=0), use)  # refuses what cannot fit
    with memory_told():
        small = KvCache(config, 2, settings.block_size, kind, device, scales)
        model = _device_model(config, weights, small, part, settings.attention, quantises=quantises)
        loaded = meter.allocated()
        largest_step(model, settings, device)  # compiles kernels, which takes memory of its own
        peak = meter.peak(lambda: largest_step(model, settings, device))
        # What a recorded step gives: logits in both types.
        graphs = settings.max_num_seqs * part.vocabulary_size * (dtype.itemsize + 4)
        use = replace(
            use, weights=loaded, step=peak - loaded, graphs=graphs if settings.cuda_graphs else 0
        )
        num_blocks = size_cache(config, settings, kind, cache_bytes(settings, use))
        num_blocks = part.ranks.least(num_blocks)
        model.hold(KvCache(config, num_blocks, settings.block_size, kind, device, scales))
    return model, num_blocks


def _no_work() -> bool:
    return False

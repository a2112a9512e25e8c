"""Builds an engine from its settings: weights, cache, model, scheduler. In the engine's process."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivet.backends.api import GeneratorInfo, LoadFailed
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.batch_state import BatchState
from trivet.backends.llm.blocks import BlockPool
from trivet.backends.llm.devices import (
    DeviceMemory,
    WeightsOn,
    cache_bytes,
    choose_device,
    choose_dtype,
    memory_told,
)
from trivet.backends.llm.engine import Engine
from trivet.backends.llm.grammar import Grammars
from trivet.backends.llm.kv_cache import KvCache
from trivet.backends.llm.messages import Message
from trivet.backends.llm.model_config import LlmConfig
from trivet.backends.llm.models import model_class
from trivet.backends.llm.native.decoder import NativeModel, why_not
from trivet.backends.llm.native.library import Native, load_native
from trivet.backends.llm.runner import Model, TorchRunner
from trivet.backends.llm.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.staging import make_staging
from trivet.backends.llm.tokenizer import Tokenizer
from trivet.backends.llm.weights import load_model

log = logging.getLogger(__name__)
MIB = 1024 * 1024


def make_engine(
    settings: EngineSettings, send: Callable[[Message], None]
) -> tuple[Engine, dict[str, Any]]:
    """A loaded engine and what it says of itself. Raises LoadFailed."""
    torch.set_num_threads(settings.num_threads or len(os.sched_getaffinity(0)))
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    config, weights, files = load_model(Path(settings.model_path), dtype)
    tokenizer = Tokenizer.from_files(files)
    max_model_len = min(settings.max_model_len or config.max_positions, config.max_positions)
    memory = DeviceMemory.of(device) if device.type == "cuda" else None
    size_bytes = cache_bytes(settings, config, weights, max_model_len, memory)
    num_blocks = size_cache(config, settings, dtype, max_model_len, size_bytes)
    with memory_told():
        cache = KvCache(config, num_blocks, settings.block_size, dtype, device)
        model = make_model(config, weights, cache)
    scheduler = Scheduler(
        BlockPool(num_blocks, settings.block_size),
        max_num_seqs=settings.max_num_seqs,
        max_batched_tokens=settings.max_batched_tokens or None,
        block_size=settings.block_size,
        enable_prefix_caching=settings.prefix_caching,
        max_model_len=max_model_len,
        max_num_waiting=settings.max_num_waiting,
    )
    state = BatchState(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=max_model_len,
        block_size=settings.block_size,
    )
    grammars = Grammars(tokenizer.to_json(), tokenizer.eos_token_ids[0], config.vocabulary_size)
    runner = TorchRunner(model, make_staging(device), max_num_seqs=settings.max_num_seqs)
    # A processor that computes has no time to plan the next step meanwhile.
    launcher = runner if device.type == "cuda" else None
    engine = Engine(scheduler, state, runner, grammars, send, launcher)
    info = GeneratorInfo(
        max_model_len=max_model_len,
        vocabulary_size=config.vocabulary_size,
        max_logprobs=settings.max_logprobs,
        dtype=str(dtype).removeprefix("torch."),
        architecture=config.architecture,
        eos_token_ids=tokenizer.eos_token_ids,
        device=device.type,
        max_num_requests=settings.max_num_seqs + settings.max_num_waiting,
    )
    return engine, asdict(info)


def make_model(config: LlmConfig, weights: Mapping[str, Tensor], cache: KvCache) -> Model:
    """The fastest way to compute the model where its cache lies."""
    chosen = model_class(config.architecture)
    device = cache.layers[0].device
    if device.type != "cpu":
        return chosen(config, WeightsOn(weights, device), _device_attention(config, cache))
    native, reason = load_native(), why_not(config, cache.layers[0].dtype)
    if isinstance(native, Native) and not reason:
        log.info("the compiled step computes, with%s AMX", "" if native.has_amx else "out")
        return NativeModel(config, weights, cache, native)
    log.info("torch computes; the compiled step cannot: %s", reason or native)
    attention = TorchAttention(cache, config.attention_scale, config.sliding_window)
    return chosen(config, weights, attention)


def _device_attention(config: LlmConfig, cache: KvCache) -> Attention:
    try:
        # Triton looks for a compiler and a driver when it is imported: only where it is needed.
        from trivet.backends.llm.attention import triton_paged
    except ImportError as error:
        reason = f"triton cannot be imported ({error})"
    else:
        reason = triton_paged.why_not(config)
    scale, window = config.attention_scale, config.sliding_window
    if reason:
        log.warning("attention: plain torch, which is slow on a GPU; Triton kernels: %s", reason)
        return TorchAttention(cache, scale, window)
    log.info("attention: Triton kernels")
    return triton_paged.TritonAttention(cache, config.num_heads, scale, window)


def size_cache(
    config: LlmConfig,
    settings: EngineSettings,
    dtype: torch.dtype,
    max_model_len: int,
    size_bytes: int,
) -> int:
    """The number of cache blocks in `size_bytes`; prints the arithmetic. Raises LoadFailed when too
    few."""
    token_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
    block_bytes = token_bytes * settings.block_size
    num_blocks = size_bytes // block_bytes
    # More than every sequence at its full length would never be used.
    most = settings.max_num_seqs * -(-max_model_len // settings.block_size) + 1
    num_blocks = min(num_blocks, most)
    num_tokens = max(num_blocks - 1, 0) * settings.block_size
    log.info(
        "key/value cache: 2 x %d layers x %d heads x %d x %d bytes = %d bytes a token; %d MiB hold "
        "%d tokens in %d blocks of %d: %.1f sequences of %d tokens",
        config.num_layers, config.num_kv_heads, config.head_dim, dtype.itemsize, token_bytes,
        num_blocks * block_bytes // MIB, num_tokens, num_blocks, settings.block_size,
        num_tokens / max_model_len, max_model_len,
    )  # fmt: skip
    if num_tokens < max_model_len:
        needed = (-(-max_model_len // settings.block_size) + 1) * block_bytes
        raise LoadFailed(
            f"the key/value cache of {size_bytes} bytes holds {num_tokens} tokens, "
            f"less than one sequence of max_model_len {max_model_len}: set the model parameter "
            f"kv_cache_bytes to {needed} or max_model_len to {num_tokens}"
        )
    return num_blocks

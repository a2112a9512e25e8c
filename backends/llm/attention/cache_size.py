"""How large a key/value cache is, and by what one of 8 bits is divided."""

import logging
import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.settings import EngineSettings

log = logging.getLogger(__name__)
MIB = 1024 * 1024


def cache_scales(weights: Mapping[str, Stored], config: LlmConfig) -> list[tuple[float, float]]:
    """What a checkpoint that was calibrated for it divides a cache of 8 bits by; else 1."""

    def scale(layer: int, kind: str) -> float:
        found = weights.get(config.names.cache_scale(layer, kind))
        return float(found.max()) if isinstance(found, Tensor) else 1.0

    return [(scale(layer, "k"), scale(layer, "v")) for layer in range(config.num_layers)]


def token_bytes_of(config: LlmConfig, dtype: torch.dtype) -> int:
    """What a token's keys and values take in all layers."""
    numbers = sum(count * math.prod(shape) for shape, count in _kinds(config).items())
    return numbers * dtype.itemsize


def size_cache(
    config: LlmConfig,
    settings: EngineSettings,
    dtype: torch.dtype,
    size_bytes: int,
    beside: int = 0,
) -> int:
    """The number of cache blocks in `size_bytes`; prints the arithmetic. `beside`: bytes a token of
    another model's cache, of as many blocks. Raises LoadFailed when too few."""
    kinds = _kinds(config)
    token_bytes = token_bytes_of(config, dtype) + beside
    block_bytes = token_bytes * settings.block_size
    num_blocks = size_bytes // block_bytes
    # More than every sequence at its full length would never be used.
    most = settings.max_num_seqs * -(-settings.max_model_len // settings.block_size) + 1
    num_blocks = min(num_blocks, most)
    num_tokens = max(num_blocks - 1, 0) * settings.block_size
    log.info(
        "key/value cache: %s x %d bytes%s = %d bytes a token; %d MiB hold "
        "%d tokens in %d blocks of %d: %.1f sequences of %d tokens",
        _product(kinds), dtype.itemsize, f" + {beside} of the model that guesses" if beside else "",
        token_bytes,
        num_blocks * block_bytes // MIB, num_tokens, num_blocks, settings.block_size,
        num_tokens / settings.max_model_len, settings.max_model_len,
    )  # fmt: skip
    if num_tokens < settings.max_model_len:
        needed = (-(-settings.max_model_len // settings.block_size) + 1) * block_bytes
        raise LoadFailed(
            f"the key/value cache of {size_bytes} bytes holds {num_tokens} tokens, "
            f"less than one sequence of max_model_len {settings.max_model_len}: set the model "
            f"parameter kv_cache_bytes to {needed} or max_model_len to {num_tokens}"
        )
    return num_blocks


def _kinds(config: LlmConfig) -> Counter[tuple[int, int, int]]:
    return Counter(
        (kind.num_cached, kind.num_kv_heads, kind.head_dim) for kind in config.attentions
    )


def _product(kinds: Mapping[tuple[int, int, int], int]) -> str:
    parts = [
        f"{num_cached} x {count} layers x {heads} heads x {size}"
        for (num_cached, heads, size), count in kinds.items()
    ]
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"

"""Which kernels compute attention on a GPU: the fastest that are there and can, told at load."""

import logging
from collections.abc import Callable

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.needs import Need

log = logging.getLogger(__name__)
ORDER = ("fa3", "varlen", "triton", "flashinfer", "torch")
"""FlashInfer is behind our own kernels, for it waits for the device at each step."""
_ONLY_TORCH = frozenset({Need.SCORE_CAP, Need.LINEAR_BIASES, Need.SINKS, Need.LATENT})
"""What changes scores, or the cache, in a way that no kernel here knows."""
Make = Callable[[], Attention]


def choose_attention(config: LlmConfig, cache: KvCache, wanted: str = "auto") -> Attention:
    """Raises LoadFailed if the one that is `wanted` cannot be had."""
    passed_over: list[str] = []
    for name in ORDER if wanted == "auto" else (wanted,):
        reason, make = _candidate(name, config, cache)
        if not reason:
            level = logging.WARNING if name == "torch" and wanted == "auto" else logging.INFO
            slow = ", which is slow on a GPU" if name == "torch" else ""
            log.log(level, "attention: %s%s%s", name, slow, "".join(passed_over))
            return make()
        passed_over.append(f"; not {name}: {reason}")
    raise LoadFailed(
        f"attention '{wanted}' cannot compute this model: {reason} (model parameter attention; "
        "'auto' takes the fastest that can)"
    )


def _candidate(name: str, config: LlmConfig, cache: KvCache) -> tuple[str, Make]:
    """Why it cannot be used, or nothing, and how it is made."""
    if name == "torch":
        is_8bit = cache.layers[0].element_size() == 1
        reason = "it reads no cache of 8-bit numbers" if is_8bit else ""
        return reason, lambda: TorchAttention(cache, config.attentions)
    if reason := _plain_why_not(config):
        return reason, _never
    try:
        # Triton looks for a compiler and a driver when it is imported: only where it is needed.
        from trivet.backends.llm.attention import libraries, triton_paged
    except ImportError as error:
        return f"triton cannot be imported ({error})", _never
    if name == "triton":
        return triton_paged.why_not(config), lambda: triton_paged.TritonAttention(
            cache, config.attentions
        )
    if len(_read_alike(config)) > 1:
        return "layers see differently, by windows or scales", _never
    library = libraries.BY_NAME[name]
    return library.why_not(config, cache), lambda: library(cache, config)


def _plain_why_not(config: LlmConfig) -> str:
    """Why kernels that know scales and windows only cannot be used; empty if they can."""
    needs = [need for kind in config.attentions for need in kind.needs() if need in _ONLY_TORCH]
    if needs:
        return f"it computes no {needs[0].value}"
    shapes = {(kind.num_heads, kind.num_kv_heads, kind.head_dim) for kind in config.attentions}
    return "layers have heads of different shapes" if len(shapes) > 1 else ""


def _read_alike(config: LlmConfig) -> set[tuple[float, int]]:
    """What kernels are told of layers: one where all are read alike."""
    return {(kind.scale, kind.window) for kind in config.attentions}


def _never() -> Attention:
    raise AssertionError("made although it cannot be used")

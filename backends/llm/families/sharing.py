"""What each of several ranks computes of a model: its config. Weights are cut by their names'
rules."""

from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import Layer, NormSpan


def sharded_config(config: LlmConfig, size: int, rank: int = 0) -> LlmConfig:
    """What one of `size` ranks computes. Raises LoadFailed where heads cannot be shared out."""
    return replace(
        config,
        layers=tuple(_shared(layer, size, rank) for layer in config.layers),
        vocabulary_size=-(-config.vocabulary_size // size),
    )


def _shared(layer: Layer, size: int, rank: int) -> Layer:
    attention, mlp = layer.attention, layer.mlp
    num_heads, num_kv_heads = attention.num_heads, attention.num_kv_heads
    few = num_kv_heads < size
    fits = size % num_kv_heads == 0 if few else num_kv_heads % size == 0
    widths = list(mlp.widths())
    if num_heads % size or any(width % size for width in widths) or not fits:
        columns = " and ".join(map(str, widths))
        raise LoadFailed(
            f"the model's {num_heads} heads, {num_kv_heads} key/value heads and "
            f"{columns} columns of the MLP cannot be shared out evenly to {size} "
            "ranks (model parameter tensor_parallel_size)"
        )
    if attention.head_norm is not None and attention.norm_span is not NormSpan.HEAD:
        raise LoadFailed(
            f"the model norms {attention.norm_span.value}, which cannot be shared out to {size} "
            "ranks (model parameter tensor_parallel_size)"
        )
    each = num_heads // size
    return replace(
        layer,
        attention=replace(
            attention,
            num_heads=each,
            num_kv_heads=max(num_kv_heads // size, 1),
            slopes=attention.slopes[rank * each : (rank + 1) * each],
        ),
        mlp=mlp.part(size),
    )

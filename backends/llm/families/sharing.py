"""What each of several ranks computes of a model: its config. Weights are cut by their names'
rules."""

from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.kinds import Layer


def sharded_config(config: LlmConfig, size: int) -> LlmConfig:
    """What each of `size` ranks computes. Raises LoadFailed where heads cannot be shared out."""
    return replace(
        config,
        layers=tuple(_shared(layer, size) for layer in config.layers),
        vocabulary_size=-(-config.vocabulary_size // size),
    )


def _shared(layer: Layer, size: int) -> Layer:
    attention, mlp = layer.attention, layer.mlp
    num_heads, num_kv_heads = attention.num_heads, attention.num_kv_heads
    few = num_kv_heads < size
    fits = size % num_kv_heads == 0 if few else num_kv_heads % size == 0
    if num_heads % size or mlp.intermediate_size % size or not fits:
        raise LoadFailed(
            f"the model's {num_heads} heads, {num_kv_heads} key/value heads and "
            f"{mlp.intermediate_size} columns of the MLP cannot be shared out evenly to {size} "
            "ranks (model parameter tensor_parallel_size)"
        )
    return replace(
        layer,
        attention=replace(
            attention, num_heads=num_heads // size, num_kv_heads=max(num_kv_heads // size, 1)
        ),
        mlp=replace(mlp, intermediate_size=mlp.intermediate_size // size),
    )

"""GGUF files that have what leads from a latent to keys and to values apart, as Hugging Face's,
which have it as one matrix."""

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.names import Role
from trivet.backends.llm.matrices.matrix import Stored


def join_latents(weights: dict[str, Stored], config: LlmConfig) -> None:
    """Puts one matrix [heads * (key + value), rank] in the place of two, of which that of keys is
    [heads, rank, key] and that of values [heads, value, rank]. Raises LoadFailed."""
    for layer, kind in enumerate(config.layers):
        keys = weights.pop(f"blk.{layer}.attn_k_b.weight", None)
        values = weights.pop(f"blk.{layer}.attn_v_b.weight", None)
        latent = kind.attention.latent
        if latent is None or not isinstance(keys, Tensor) or not isinstance(values, Tensor):
            continue
        heads = kind.attention.num_heads
        wanted = {
            "attn_k_b": (keys, (heads, latent.rank, latent.plain_size)),
            "attn_v_b": (values, (heads, latent.value_size, latent.rank)),
        }
        for name, (tensor, shape) in wanted.items():
            if tuple(tensor.shape) != shape:
                raise LoadFailed(
                    f"weight 'blk.{layer}.{name}.weight' is of shape {list(tensor.shape)}; the "
                    f"metadata need {list(shape)}"
                )
        joined = torch.cat((keys.transpose(1, 2), values), dim=1).flatten(0, 1)
        weights[config.names.of(Role.LATENT_UP).whole_in_hub("weight", layer)] = joined

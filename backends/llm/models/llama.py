"""The Llama shape: Llama, Mistral, Qwen2, Qwen3 and SmolLM2 differ in their config only.

Source: Touvron et al., LLaMA (2023).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import Attention, StepInputs
from trivet.backends.llm.device.kv_cache import KvCache
from trivet.backends.llm.models.config import LlmConfig
from trivet.backends.llm.models.linear import linear
from trivet.backends.llm.models.llama_weights import Layer, read_weights
from trivet.backends.llm.models.vocabulary import Vocabulary
from trivet.backends.llm.weights.shards import Part


class LlamaModel:
    """A decoder over the paged cache. Owned by the engine's thread."""

    def __init__(
        self,
        config: LlmConfig,
        weights: Mapping[str, Tensor],
        attention: Attention,
        part: Part | None = None,
        *,
        quantises: bool = False,
    ) -> None:
        """`part`: what this process computes, of which `config` and `weights` are; None: all.
        Raises LoadFailed when a weight is missing, of the wrong shape or not known."""
        part = part or Part.whole(config)
        self._config = config
        self._attention = attention
        self._ranks = part.ranks
        read = read_weights(config, weights, quantises=quantises)
        self._vocabulary = Vocabulary(read.embedding, read.head, part.ranks, part.vocabulary_size)
        self._norm = read.norm
        self._cosines, self._sines = read.cosines, _signed(read.sines)
        self._layers = [_Layer(config, layer) for layer in read.layers]

    is_recordable = False
    """Plain torch asks the device for lengths."""

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._attention.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        eps = self._config.rms_norm_eps
        hidden = self._vocabulary.embed(inputs.token_ids)
        cosines = self._cosines[inputs.positions].unsqueeze(1)
        sines = self._sines[inputs.positions].unsqueeze(1)
        self._attention.begin(inputs)
        for index, layer in enumerate(self._layers):
            normed = _norm(hidden, layer.input_norm, eps)
            hidden = hidden + self._attend(index, layer, normed, cosines, sines)
            normed = _norm(hidden, layer.post_norm, eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + self._ranks.sum(layer.down(functional.silu(gate).mul_(up)))
        wanted = _norm(hidden[inputs.sample_rows], self._norm, eps)
        return self._vocabulary.logits(wanted)

    def _attend(
        self, index: int, layer: "_Layer", hidden: Tensor, cosines: Tensor, sines: Tensor
    ) -> Tensor:
        config = self._config
        qkv = layer.qkv(hidden).view(len(hidden), -1, config.head_dim)
        num_heads, num_kv_heads = config.num_heads, config.num_kv_heads
        heads, value = torch.split(qkv, [num_heads + num_kv_heads, num_kv_heads], dim=1)
        if layer.head_norm is not None:
            heads = _norm(heads, layer.head_norm, config.rms_norm_eps)
        heads = _rotated(heads, cosines, sines)
        query, key = torch.split(heads, [num_heads, num_kv_heads], dim=1)
        output = self._attention.attend(index, query, key, value)
        return self._ranks.sum(layer.output(output.reshape(len(hidden), -1)))


class _Layer:
    """A layer's weights in the layout to compute with."""

    def __init__(self, config: LlmConfig, layer: Layer) -> None:
        self.input_norm, self.post_norm = layer.input_norm, layer.post_norm
        self.head_norm: Tensor | None = None
        if layer.query_norm is not None and layer.key_norm is not None:
            # [query and key heads, head size]: they are normed, and rotated, in one go.
            query = layer.query_norm.expand(config.num_heads, -1)
            key = layer.key_norm.expand(config.num_kv_heads, -1)
            self.head_norm = torch.cat((query, key))
        self.qkv = linear(layer.qkv, layer.qkv_bias)
        self.output = linear(layer.output, layer.output_bias)
        self.gate_up = linear(layer.gate_up)
        self.down = linear(layer.down)


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    swapped = states.roll(states.shape[-1] // 2, dims=-1)
    return torch.addcmul(states * cosines, swapped, sines)


def _signed(sines: Tensor) -> Tensor:
    """Negative in the first half: what a rotation takes away there it adds in the second."""
    first, second = sines.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


def _norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    # In float32 whatever the weights are, as the models were trained; torch's own kernel is not.
    normed = functional.rms_norm(hidden.float(), weight.shape[-1:], eps=eps)
    return weight * normed.to(weight.dtype)

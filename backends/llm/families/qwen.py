"""Qwen2, the Llama shape with biases, and Qwen3, with norms of its heads (2024, 2025)."""

from collections.abc import Container

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.llama import (
    gguf_shape,
    hub_shape,
    some_windows,
)


def _qwen2_from_hub(config: Described) -> LlmConfig:
    shape = hub_shape(config, "qwen2", windows=some_windows(config), has_qkv_bias=True)
    return shape.config()


def _qwen2_from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    return gguf_shape(metadata, tensor_names, "qwen2").config()


def _qwen3_from_hub(config: Described) -> LlmConfig:
    has_bias = config.flag("attention_bias", default=False)
    return hub_shape(
        config,
        "qwen3",
        windows=some_windows(config),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        has_qk_norm=True,
    ).config()


def _qwen3_from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    return gguf_shape(metadata, tensor_names, "qwen3").config()


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", _qwen2_from_hub, _qwen2_from_gguf)
QWEN3 = Family("qwen3", "Qwen3ForCausalLM", _qwen3_from_hub, _qwen3_from_gguf)
